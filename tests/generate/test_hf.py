"""Answers of a batch of ragged prompts are those of every prompt alone, and end at the end token."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers

from finegrain.errors import DataError
from finegrain.generate import hf
from finegrain.generate.hf import generate_greedy, sample_answers
from finegrain.models.scorer import use_branched_attention
from tests.tiny import MODELS, VOCABULARY


def mamba() -> Any:
    return T.MambaForCausalLM(T.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=1))


def tokenizer(*, pad: bool = False) -> Any:
    """Words w0, w1, ... by id; the last one ends."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return T.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=f"w{VOCABULARY - 1}", **({"pad_token": "w0"} if pad else {}))


def prompts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, VOCABULARY - 1, length).astype(np.int32) for length in (1, 20, 7, 33)]


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("make", [*MODELS.values(), mamba], ids=[*MODELS, "mamba"])
def test_a_batch_is_each_prompt_alone(make: Any, pad: bool) -> None:
    model, words = make().double(), tokenizer(pad=pad)
    use_branched_attention(model) if make is not mamba else None
    together = generate_greedy(model, words, prompts(), max_new_tokens=8)
    assert together == [generate_greedy(model, words, [prompt], max_new_tokens=8)[0] for prompt in prompts()]
    assert len(set(together)) > 1
    assert model.training


@pytest.mark.parametrize("name", ["llama", "gemma2, soft-caps"])
def test_a_batch_is_taken_where_padding_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row that sees nothing, as padding does in a soft-capped attention in float64, the softmax is not a number."""
    model, sizes = MODELS[name]().double(), []
    generate = model.generate

    def noted(**named: Any) -> Any:
        if named["max_new_tokens"] > 1:
            sizes.append(len(named["input_ids"]))
        return generate(**named)

    monkeypatch.setattr(model, "generate", noted)
    assert generate_greedy(model, tokenizer(), [], max_new_tokens=4) == []
    generate_greedy(model, tokenizer(), prompts(), max_new_tokens=2)
    generate_greedy(model, tokenizer(), [prompts()[1]] * 3, max_new_tokens=2)
    assert sizes == ([4, 3] if name == "llama" else [1, 1, 1, 1, 3])


def test_an_answer_ends_at_its_end_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of the batch go on; what fills the row is no part of the answer."""
    model, words, end = MODELS["llama"](), tokenizer(pad=True), VOCABULARY - 1
    rows = torch.tensor([[5, end, 0, 0], [6, 7, 8, 9]])
    monkeypatch.setattr(model, "generate", lambda **named: torch.cat([named["input_ids"], rows], 1))
    monkeypatch.setattr(hf, "is_padding_unseen", lambda *given: True)
    two = [prompts()[0], prompts()[2]]
    assert generate_greedy(model, words, two, max_new_tokens=4) == ["w5", "w6 w7 w8 w9"]
    assert [answer.tolist() for answer in sample_answers(model, words, two, max_new_tokens=4, seed=0)] == [[5, end], [6, 7, 8, 9]]


def test_samples_are_drawn_by_the_seed_alone() -> None:
    model, words = MODELS["llama"](), tokenizer()
    before = torch.random.get_rng_state()
    one, again, other = (sample_answers(model, words, prompts(), max_new_tokens=6, seed=seed) for seed in (0, 0, 1))
    assert [answer.tolist() for answer in one] == [answer.tolist() for answer in again]
    assert [answer.tolist() for answer in one] != [answer.tolist() for answer in other]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("pad", "end"), [(VOCABULARY, VOCABULARY - 1), (VOCABULARY + 3, VOCABULARY + 4), (None, None)])
def test_rows_are_filled_with_a_token_of_the_model(pad: int | None, end: int | None) -> None:
    """A pad token beyond the embeddings is never read, and none is needed."""
    model, words = MODELS["llama"](), tokenizer()
    model.generation_config.eos_token_id = None
    given = SimpleNamespace(pad_token_id=pad, eos_token_id=end, decode=words.decode)
    together = generate_greedy(model, given, prompts(), max_new_tokens=4)
    assert together == [generate_greedy(model, given, [prompt], max_new_tokens=4)[0] for prompt in prompts()]


@pytest.mark.parametrize(
    "setting",
    [{"repetition_penalty": 50.0}, {"min_p": 0.9, "do_sample": True}, {"suppress_tokens": [*range(90)]}, {"prompt_lookup_num_tokens": 2}],
    ids=str,
)
def test_answers_are_of_the_models_own_probabilities(setting: dict[str, Any]) -> None:
    """What a checkpoint's generation config does to them belongs to no sample: its likelihood would be another one."""
    model, words = MODELS["llama"](), tokenizer()
    want = generate_greedy(model, words, prompts(), max_new_tokens=4), sample_answers(model, words, prompts(), max_new_tokens=4, seed=0)
    model.generation_config.update(**setting)
    own = model.generation_config
    assert generate_greedy(model, words, prompts(), max_new_tokens=4) == want[0]
    drawn = sample_answers(model, words, prompts(), max_new_tokens=4, seed=0)
    assert [answer.tolist() for answer in drawn] == [answer.tolist() for answer in want[1]]
    assert model.generation_config is own


def test_every_end_token_of_the_generation_config_ends_a_sample() -> None:
    """As of chat models, whose turns end with another token than the tokenizer's EOS."""
    model, words = MODELS["llama"](), tokenizer()
    model.generation_config.eos_token_id = None
    long = sample_answers(model, words, prompts(), max_new_tokens=6, seed=0)
    turn_end = int(long[0][2])
    model.generation_config.eos_token_id = [VOCABULARY - 1, turn_end]
    for before, now in zip(long, sample_answers(model, words, prompts(), max_new_tokens=6, seed=0), strict=True):
        ends = np.flatnonzero(before == turn_end)
        assert now.tolist() == before[: ends[0] + 1 if len(ends) else None].tolist()


def gpt2(positions: int) -> Any:
    """A table of so many positions."""
    torch.manual_seed(0)
    return T.GPT2LMHeadModel(T.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=positions))


def test_a_long_prompt_shortens_no_other_answer() -> None:
    """Learned positions: of 40, the prompt of 33 tokens leaves 7, the others have room for 12; nothing ends by itself."""
    model, words = gpt2(40).double(), SimpleNamespace(pad_token_id=0, bos_token_id=None, eos_token_id=None)
    drawn = sample_answers(model, words, prompts(), max_new_tokens=12, seed=0)
    assert [len(answer) for answer in drawn] == [12, 12, 12, 7]
    greedy = sample_answers(model, words, prompts(), max_new_tokens=12, seed=0, temperature=0.0)
    alone = [sample_answers(model, words, [prompt], max_new_tokens=12, seed=1, temperature=0.0)[0] for prompt in prompts()]
    assert [answer.tolist() for answer in greedy] == [answer.tolist() for answer in alone]
    assert [len(answer) for answer in sample_answers(model, words, [np.ones(60, dtype=np.int32)], max_new_tokens=12, seed=0)] == [1]


def test_an_empty_prompt_begins_at_bos() -> None:
    """Or at EOS; beside a longer prompt it is not answered from padding."""
    model, words = MODELS["llama"]().double(), tokenizer(pad=True)
    empty, end = np.zeros(0, dtype=np.int32), VOCABULARY - 1
    for opening in (end, 5):
        if opening != end:
            words.bos_token = f"w{opening}"
        together = generate_greedy(model, words, [empty, prompts()[1]], max_new_tokens=6)
        assert together[0] == generate_greedy(model, words, [np.array([opening], dtype=np.int32)], max_new_tokens=6)[0]
    with pytest.raises(DataError, match="neither BOS nor EOS"):
        generate_greedy(model, SimpleNamespace(pad_token_id=0, bos_token_id=None, eos_token_id=None), [empty], max_new_tokens=2)
