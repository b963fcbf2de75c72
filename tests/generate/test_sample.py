"""Sampled answers are the same alone, in any batch and order, with little memory, with and without drafts, and by Hugging Face's generation."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T

from finegrain.errors import DataError
from finegrain.generate.engine import EngineSampler
from finegrain.generate.growing import find_context
from finegrain.generate.sample import open_sampler
from finegrain.generate.sampling import Sample, Sampling
from finegrain.generate.stock import StockSampler
from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Request, plain, silence_dropout, use_branched_attention
from finegrain.online.rollout import Ended
from tests.data.tiny import byte_level
from tests.tiny import MODELS, VOCABULARY, exact_norms

SMALL = 12
"""Tokens of the models here, few, so that answers end and repeat themselves."""
END = SMALL - 1
WORDS = SimpleNamespace(pad_token_id=0, bos_token_id=1, eos_token_id=END)


def gpt2(positions: int) -> Any:
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": positions, "bos_token_id": 1, "eos_token_id": END}
    return T.GPT2LMHeadModel(T.GPT2Config(vocab_size=SMALL, **sizes))


NAMES = {
    "mistral, window 6": partial(MODELS["mistral, window 6"], vocab_size=SMALL, pad_token_id=0, eos_token_id=END),
    "gemma2, soft-caps": partial(MODELS["gemma2, soft-caps"], vocab_size=SMALL, eos_token_id=END),
    "gpt2": partial(gpt2, 64),
}


def wide(name: str = "mistral, window 6") -> Any:
    """In float64."""
    model = NAMES[name]().double().eval()
    exact_norms(model)
    silence_dropout(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    model.generation_config.eos_token_id = [END, 5]
    return model


def prompts(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.tile(rng.integers(6, END, 4), 5)[:length].astype(np.int32) for length in (1, 17, 7, 12, 12)[:count]]


def flat(found: list[list[Sample]]) -> list[Sample]:
    return [one for own in found for one in own]


def engine(model: Any, seed: int = 3, memory: int = 2**29, **settings: Any) -> EngineSampler:
    return EngineSampler(model, WORDS, Sampling(**{"answers": 3, "max_new_tokens": 12} | settings), seed=seed, memory=memory)


def ids(found: list[list[Sample]]) -> list[list[list[int]]]:
    return [[one.ids.tolist() for one in own] for own in found]


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("mistral, window 6", 1.0),
        ("mistral, window 6", 0.0),
        ("gpt2", 1.0),
        *(pytest.param("gemma2, soft-caps", temperature, marks=pytest.mark.slow) for temperature in (1.0, 0.0)),
    ],
)
def test_tokens_do_not_depend_on_the_batch_or_on_drafts(name: str, temperature: float) -> None:
    model, given = wide(name), prompts()
    want = engine(model, temperature=temperature)(given, range(5), 7)
    assert len({tuple(own) for found in ids(want) for own in found}) > (10 if temperature else 2)
    if temperature:
        assert len({len(own) for found in ids(want) for own in found}) > 3
    alone = [*(engine(model, temperature=temperature)([given[row]], [row], 7)[0] for row in (0, 1)), *want[2:]]
    turned = engine(model, temperature=temperature)(given[::-1], range(4, -1, -1), 7)[::-1]
    little = engine(model, temperature=temperature, memory=40_000)(given, range(5), 7)
    drafting = engine(model, temperature=temperature, lookup_tokens=4, lookup_match=1)
    drafted = drafting(given, range(5), 7)
    for found in (alone, turned, little, drafted):
        assert ids(found) == ids(want)
        for own, other in zip(flat(found), flat(want), strict=True):
            assert np.abs(own.logp - other.logp).max() <= 1e-10
            assert own.ended == other.ended
    counts = drafting.counts
    assert 0 < counts.accepted < counts.proposed
    assert counts.wasted == counts.proposed - counts.accepted
    assert counts.inputs - counts.proposed == counts.columns - counts.accepted
    assert counts.inputs < counts.padded_inputs
    assert counts.columns < counts.padded_columns
    assert counts.columns == counts.tokens - counts.answers, "the first tokens come from the prompts"


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_scorers(temperature: float) -> None:
    """Of the sampling temperature."""
    model = wide()
    found = engine(model, temperature=temperature, lookup_tokens=3, lookup_match=1)(prompts(), range(5), 0)
    groups = [
        Group(prompt, tuple(Branch(one.ids, np.ones(len(one.ids), dtype=bool)) for one in own)) for prompt, own in zip(prompts(), found, strict=True)
    ]
    if temperature != 1.0:
        model.lm_head.weight.data /= temperature
    with torch.no_grad():
        want = plain(model, groups, Request()).logp
    assert np.abs(np.concatenate([one.logp for own in found for one in own]) - want.numpy()).max() <= 1e-10


@pytest.mark.parametrize("name", ["mistral, window 6", "gemma2, soft-caps"])
def test_generation_of_hugging_face_draws_the_same(name: str) -> None:
    """And so does an architecture that the engine cannot run."""
    model = wide(name)
    settings = Sampling(answers=3, max_new_tokens=12)
    stock = StockSampler(model, WORDS, settings, seed=3, reason="of a test")
    found, want = stock(prompts(), range(5), 7), engine(model)(prompts(), range(5), 7)
    if name.startswith("mistral"):
        assert ids(found) == ids(want)
        assert max(np.abs(one.logp - other.logp).max() for one, other in zip(flat(found), flat(want), strict=True)) <= 1e-6, (
            "generation is in float32"
        )
    assert [[one.ended for one in own] for own in found] == [[one.ended for one in own] for own in want]
    assert stock.counts.tokens == sum(len(own) for each in ids(found) for own in each)


def bloom() -> Any:
    torch.manual_seed(0)
    return T.BloomForCausalLM(T.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)).double()


def mamba() -> Any:
    torch.manual_seed(0)
    return T.MambaForCausalLM(T.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=1)).double()


@pytest.mark.parametrize("make", [bloom, mamba])
def test_the_fallback_is_opened_and_said(make: Any) -> None:
    model = make().train()
    sampler = open_sampler(model, WORDS, Sampling(answers=2, max_new_tokens=5, lookup_tokens=2), seed=0)
    assert isinstance(sampler, StockSampler)
    assert "because the engine does not run on" in sampler.describe()
    assert "drafts by look-up are not used" in sampler.describe()
    together = sampler(prompts(), range(5), 0)
    assert ids(together) == ids([sampler([prompt], [row], 0)[0] for row, prompt in enumerate(prompts())])
    assert model.training


def test_the_engine_is_opened_where_it_is_exact() -> None:
    for name in ("gemma3, mixed layers", "gpt2, default dropout", "granite, scaled logits"):
        model = MODELS[name]().train()
        silence_dropout(model)
        use_branched_attention(model)
        sampler = open_sampler(model, WORDS, Sampling(), seed=0)
        assert isinstance(sampler, EngineSampler), (name, sampler.describe())
        assert "own engine" in sampler.describe()


def test_every_end_token_ends_and_is_kept() -> None:
    found = engine(wide(), answers=12)(prompts(), range(5), 0)
    ends = [(one.ids[-1], one.ended) for own in found for one in own]
    assert {(5, Ended.END_TOKEN), (END, Ended.END_TOKEN)} <= set(ends)
    assert all(not np.isin(one.ids[:-1], [5, END]).any() for own in found for one in own)
    assert all((ended == Ended.END_TOKEN) == (last in (5, END)) for last, ended in ends)
    assert all(len(one.ids) == 12 for own in found for one in own if one.ended == Ended.LENGTH)


def test_the_context_ends_answers_and_leaves_out_prompts() -> None:
    """A table of 20 positions: the prompt of 17 leaves 3 tokens, one of 20 leaves none."""
    model = gpt2(20).double().eval()
    model.generation_config.eos_token_id = None
    assert find_context(model) == 20
    nothing = SimpleNamespace(pad_token_id=0, bos_token_id=None, eos_token_id=None)
    given = [*prompts(), np.full(20, 7, dtype=np.int32), np.full(30, 7, dtype=np.int32)]
    for sampler in (
        EngineSampler(model, nothing, Sampling(answers=2, max_new_tokens=6, lookup_tokens=3, lookup_match=1), seed=0),
        StockSampler(model, nothing, Sampling(answers=2, max_new_tokens=6), seed=0, reason="of a test"),
    ):
        found = sampler(given, range(7), 0)
        assert [[len(one.ids) for one in own] for own in found] == [[6, 6], [3, 3], [6, 6], [6, 6], [6, 6], [], []]
        assert {one.ended for own in found for one in own} == {Ended.LENGTH}
        assert (sampler.counts.prompts_too_long, sampler.counts.cut_by_context, sampler.counts.answers) == (2, 2, 10)
        assert sampler([], [], 0) == [] == sampler([], [], 1)
        with pytest.raises(DataError, match="neither BOS nor EOS"):
            sampler([np.zeros(0, dtype=np.int32)], [0], 0)


def test_stop_strings_end_answers_within_a_token() -> None:
    """A byte-level tokenizer; a stop string that ends inside a token keeps the token, and the engine and generation agree."""
    torch.manual_seed(0)
    words = byte_level()
    model = T.LlamaForCausalLM(
        T.LlamaConfig(vocab_size=400, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).double()
    model.generation_config.eos_token_id = None
    given = [np.array(words("hello there", add_special_tokens=False)["input_ids"], dtype=np.int32)]
    free = EngineSampler(model, words, Sampling(answers=8, max_new_tokens=30), seed=0)(given, [0], 0)[0]
    longest = max((token for one in free for token in one.ids[1:].tolist()), key=lambda token: len(words.decode([token]).strip()))
    stop = words.decode([longest]).strip()[:-1]
    assert len(stop) > 1
    settings = Sampling(answers=8, max_new_tokens=30, stop=(stop, "nothing of the kind"))
    found = EngineSampler(model, words, settings, seed=0)(given, [0], 0)
    stopped = [one for one in found[0] if one.ended == Ended.STOP_STRING]
    assert stopped
    for one, other in zip(found[0], free, strict=True):
        assert other.ids[: len(one.ids)].tolist() == one.ids.tolist()
    assert any(one.ids[-1] == longest for one in stopped), "the token that goes beyond the string"
    for one in stopped:
        assert stop in words.decode(one.ids)
        assert stop not in words.decode(one.ids[:-1])
    assert ids(StockSampler(model, words, settings, seed=0, reason="of a test")(given, [0], 0)) == ids(found)


def test_weights_may_change_between_calls_and_little_memory_takes_more_passes() -> None:
    model = wide()
    sampler, small = engine(model), engine(model, memory=40_000)
    before = sampler(prompts(), range(5), 0)
    small(prompts(), range(5), 0)
    assert small.counts.passes > sampler.counts.passes
    assert ids(sampler(prompts(), range(5), 0)) == ids(before) != ids(sampler(prompts(), range(5), 1))
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    assert ids(sampler(prompts(), range(5), 0)) != ids(before)
