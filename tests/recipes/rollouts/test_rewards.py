"""rewards: an answer's reward is its number plus its tokens', once, on the policy's tokens, whatever tokenizer the reward reads."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from finegrain.credit.reward_signals import Attention, Head, PrefixDifference, Terminal, Uniform
from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import NonFiniteError, UsageError
from finegrain.ops.aggregate import MinusStd
from finegrain.ops.segmenters import Windows
from finegrain.recipes.rollouts.rewards import Rewards, open_rewards
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.rewards.token import Token
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates, TrainerState
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions
from tests.recipes.reward_folder import moved, save_reward
from tests.scoring.laws import tokenizers
from tests.tiny import save_tiny

WORDS = (" good people said yes", " bad words", " the cat sat", " a dog ran")
FUNCTIONS = """
import asyncio

seen = {"here": asyncio.Event(), "there": asyncio.Event()}

def length(completions, **kwargs): return [float(len(text)) for text in completions]
def right(completions, answer): return [1.0 if one in text else 0.0 for one, text in zip(answer, completions)]
def by_place(completions, completion_ids, trainer_state):
    return [[float(trainer_state.global_step + place) for place, _ in enumerate(ids)] for ids in completion_ids]
def first_word(completions, **kwargs): return [[(0, 5, 1.0)] for _ in completions]
def none(completions, **kwargs): return [None] * len(completions)
def some(completions, **kwargs): return [None if "bad" in text else 1.0 for text in completions]
def one_short(completions, **kwargs): return [[1.0] for _ in completions]
def nan(completions, **kwargs): return [float("nan") for _ in completions]
async def here(completions, **kwargs):
    seen["here"].set()
    await seen["there"].wait()
    return [1.0] * len(completions)
async def there(completions, **kwargs):
    seen["there"].set()
    await seen["here"].wait()
    return [2.0] * len(completions)
"""


@pytest.fixture(scope="module", autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rewards")
    model = save_tiny(folder / "model")
    moved(model, folder / "policy", 1)
    save_reward(model, folder / "rm", "sequence", SequenceHead())
    save_reward(model, folder / "rm-token", "token", Token())
    save_reward(model, folder / "rm-ensemble", "ensemble", Ensemble(members=3))
    save_reward(model, folder / "rm-segment", "segment", Segment(segmenter=Windows(size=2)))
    (folder / "rules.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


OWN, BYTES, OTHER = 0, 1, 2
"""The rewards' tokenizer, one that writes bytes alone with its vocabulary, and one of another vocabulary."""


@cache
def policy_tokenizer(which: int) -> Any:
    if which != OTHER:
        return tokenizers()[which]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<eos>", "<pad>", "<bos>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["people said bad words ran ran cat sat"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def sampled(which: int = OWN, *, ended: bool = True) -> list[Candidates]:
    """Answers as the policy with this tokenizer sampled them."""
    tokenizer = policy_tokenizer(which)
    rows = [Row(prompt=f"why {place % 2} ?", answers={"answer": Answer(content=text)}) for place, text in enumerate(WORDS)]
    examples = list(tokenise(enumerate(rows), tokenizer, Tokenise(max_length=64), Findings()))
    if not ended:
        cut = lambda one: replace(one, ids=one.ids[:-1], mask=one.mask[:-1], offsets=one.offsets[:-1])
        examples = [replace(one, responses={"answer": cut(one.responses["answer"])}) for one in examples]
    return [Candidates(row=one.row, tokens=one, tokenizer=tokenizer, columns={"answer": "yes"}) for one in examples]


def opened(*sources: str, weights: list[float] | None = None, **more: Any) -> Rewards:
    return open_rewards(sources, weights, runtime=lambda: open_runtime("cpu", "float64"), max_length=64, **more)


def plain(source: str) -> torch.Tensor:
    """What `score` says of the texts."""
    reward = open_reward(source, RewardOptions(runtime=lambda: open_runtime("cpu", "float64"), max_length=64))
    rows = [Candidates(row=one.row, made=one.text, columns=one.columns) for one in sampled()]
    return torch.tensor([float(found["answer"].answer.mean) for found in reward.score(rows)], dtype=torch.float64)  # type: ignore[union-attr]


def test_functions_of_every_form() -> None:
    for which in (OWN, OTHER):
        given = sampled(which)
        rewards = opened("rules.py:length", "rules.py:right", "rules.py:by_place", "rules.py:first_word", "column:answer_length")
        assert rewards.names == ("length", "right", "by_place", "first_word", "answer_length")
        columns = [{**one.columns, "answer_length": 3.0} for one in given]
        found = rewards.score([replace(one, columns=own) for one, own in zip(given, columns, strict=True)], TrainerState(global_step=5, max_steps=9))
        assert found.std is None
        lengths = [len(text) for text in WORDS]
        assert found.sequence.T.tolist() == [[*map(float, lengths)], [1.0, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4, [3.0] * 4]
        for one, tokens, spans in zip(given, found.tokens, found.spans, strict=True):
            response = one.tokens.responses["answer"]  # type: ignore[union-attr]
            assert tokens.shape == (len(response.ids), 5)
            assert not tokens[:, [0, 1, 4]].any()
            np.testing.assert_array_equal(tokens[:, 2], 5.0 + np.arange(len(response.ids)))
            assert tokens[:, 3].sum() == pytest.approx(1.0)
            assert not tokens[response.offsets[:, 0] >= 5, 3].any()
            assert {name: [tuple(span)[:3] for span in own] for name, own in spans.items()} == {"first_word": [(0, 5, 1.0)]}
        np.testing.assert_allclose(found.totals[:, 3], 1.0)


def test_async_functions_wait_together() -> None:
    """Each waits for the other's call."""
    found = opened("rules.py:here", "rm", "rules.py:there", timeout=20.0).score(sampled())
    assert found.sequence[:, [0, 2]].tolist() == [[1.0, 2.0]] * 4
    torch.testing.assert_close(found.sequence[:, 1], plain("rm"))
    assert asyncio.run(asyncio.sleep(0, True)), "the caller's own thread has no loop running"


@pytest.mark.parametrize("which", [OWN, OTHER])
def test_nothing_is_counted_twice(which: int) -> None:
    given, score = sampled(which), plain("rm")
    terminal = opened("rm").score(given)
    torch.testing.assert_close(terminal.sequence[:, 0], score)
    assert not any(tokens.any() for tokens in terminal.tokens)
    totals = {}
    for credit in (Attention(), Uniform(), PrefixDifference()):
        found = opened("rm", credit=credit).score(given)
        assert not found.sequence.any()
        assert all((tokens != 0).sum() > 2 for tokens in found.tokens)
        totals[type(credit)] = found.totals[:, 0]
    torch.testing.assert_close(totals[Attention], score)
    torch.testing.assert_close(totals[Uniform], score)
    started = score - totals[PrefixDifference]
    torch.testing.assert_close(started[:2], started[2:], msg="what is missing is the prompts' score, and these have the same two prompts")


@pytest.mark.parametrize("which", [OWN, BYTES])
def test_sampled_tokens_of_the_vocabulary_are_read_as_they_are(which: int) -> None:
    reward = open_reward("rm", RewardOptions(runtime=lambda: open_runtime("cpu", "float64"), max_length=64, signal=PrefixDifference()))
    given = sampled(which)
    prompts = [one.tokens.prompt for one in sampled()]  # type: ignore[union-attr]  # which the reward's tokenizer writes
    direct = [
        replace(one, tokens=replace(one.tokens, prompt=prompt), tokenizer=reward.tokenizer)  # type: ignore[type-var]
        for one, prompt in zip(given, prompts, strict=True)
    ]
    found = opened("rm", credit=PrefixDifference()).score(given)
    for tokens, wanted in zip(found.tokens, reward.score(direct), strict=True):
        np.testing.assert_array_equal(tokens[:, 0], wanted["answer"].tokens.mean.numpy())  # type: ignore[union-attr]


@pytest.mark.parametrize(("source", "readout"), [("rm-token", "sum"), ("rm-segment", "segments")])
def test_dense_heads(source: str, readout: str) -> None:
    """Their tokens add up to the answer's score for a sum; under terminal the score is at the end."""
    own, other = (opened(source, credit=Head()).score(sampled(which)) for which in (OWN, OTHER))
    assert not own.sequence.any()
    torch.testing.assert_close(own.totals, other.totals, msg="another tokenizer's tokens have the same sum")
    terminal = opened(source).score(sampled())
    torch.testing.assert_close(terminal.sequence[:, 0], plain(source))
    assert not any(tokens.any() for tokens in terminal.tokens)
    if readout == "sum":
        torch.testing.assert_close(own.totals[:, 0], plain(source))


def test_uncertain_rewards() -> None:
    sure, careful = (opened("rm-ensemble", aggregate=aggregate).score(sampled()) for aggregate in (None, MinusStd(k=2.0)))
    assert sure.std is not None
    torch.testing.assert_close(careful.sequence, sure.sequence - 2 * sure.std)
    dense = opened("rm-ensemble", "rules.py:none", credit=PrefixDifference(), aggregate=MinusStd(k=2.0)).score(sampled())
    torch.testing.assert_close(dense.sequence[:, :1], -2 * sure.std, msg="a penalty belongs to the answer")
    assert dense.std is not None
    assert dense.std[:, 1].isnan().all()


def test_implicit_rewards_beside_a_reward_model() -> None:
    sources, more = ("policy", "rm"), {"reference": "model", "beta": 0.5}
    found = opened(*sources, **more).score(sampled(OTHER))
    torch.testing.assert_close(found.sequence[:, 1], plain("rm"))
    dense = opened("policy", credit=Head(), **more).score(sampled(OTHER))
    torch.testing.assert_close(dense.totals[:, 0], found.sequence[:, 0])
    assert not dense.sequence.any()
    with pytest.raises(UsageError, match=r"policy is implicit reward, .* take credit:head, or credit:terminal"):
        opened(*sources, credit=Attention(), **more)


def test_answers_without_an_end() -> None:
    """A cut answer is read without an end token, by whatever tokenizer."""
    own, other, ended = (opened("rm").score(given).sequence for given in (sampled(ended=False), sampled(OTHER, ended=False), sampled()))
    torch.testing.assert_close(own, other)
    assert (own - ended).abs().min() > 1e-3
    whole, cut = (opened("rm").score(sampled(BYTES, ended=end)).sequence for end in (True, False))
    assert (whole - cut).abs().min() > 1e-3


def test_answers_that_are_not_judged() -> None:
    found = opened("rules.py:some", "rules.py:none", "rm").score(sampled())
    assert found.sequence.isnan().tolist() == [[False, True, False], [True, True, False], [False, True, False], [False, True, False]]
    assert (dict(found.unjudged), dict(found.truncated)) == ({"some": 1, "none": 4, "rm": 0}, {"some": 0, "none": 0, "rm": 0})
    assert found.warnings == ["reward none judged none of 4 answers: it gave none of them a number"]
    assert found.totals.isnan().equal(found.sequence.isnan())


def test_bad_returns() -> None:
    with pytest.raises(UsageError, match=r"rules.py:one_short, row 0: 1 rewards for an answer of \d+ tokens"):
        opened("rules.py:one_short").score(sampled())
    with pytest.raises(NonFiniteError, match=r"rules.py:nan, row 0: a score is nan"):
        opened("rules.py:nan").score(sampled())


@pytest.mark.parametrize(
    ("sources", "more", "message"),
    [
        ((), {}, "no reward"),
        (("rm",), {"weights": [1.0, 2.0]}, "1 rewards need as many finite weights; got 1, 2"),
        (("rm",), {"weights": [float("nan")]}, "finite weights"),
        (("rm",), {"timeout": 0.0}, "above 0 s"),
        (("rm",), {"credit": Head()}, "take credit:prefix-difference, .* or credit:terminal"),
        (("rm-token",), {"credit": Attention()}, "credit:attention is for a score read at the last token; .* take credit:head$"),
        (("rules.py:length",), {"aggregate": MinusStd()}, "a function of your own says one number"),
        (("rules.py:missing",), {}, "has no function 'missing'"),
    ],
)
def test_refusals(sources: tuple[str, ...], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(*sources, **more)


def test_facts() -> None:
    rewards = opened("rm", "rules.py:length", "rm", weights=[1.0, 0.5, 2.0], credit=Uniform(), timeout=3.0)
    facts = rewards.facts()
    assert [(one["name"], one["kind"], one["weight"]) for one in facts["rewards"]] == [
        ("rm", "reward model", 1.0),
        ("length", "function", 0.5),
        ("rm-2", "reward model", 2.0),
    ]
    assert (facts["credit"], facts["timeout"]) == ({"method": "uniform", "share": None}, 3.0)
    assert len(facts["rewards"][0]["weights"]) == len(facts["rewards"][1]["file"]) == 64
    assert rewards.describe()[:2] == [
        "reward rm (rm), weight 1, on tokens",
        "reward length (rules.py:length), weight 0.5, on tokens where it says so",
    ]
    assert opened("rm", credit=Terminal()).describe() == ["reward rm (rm), weight 1, at the end of the answer"]


def test_names_of_measures_and_classifiers() -> None:
    assert opened("measure:similarity:answer", "measure:similarity", "measure:fkgl").names == ("similarity", "similarity-2", "fkgl")


def test_rewards_that_did_not_judge_an_answer_count_as_0_in_its_sum() -> None:
    rewards = Rewards((), (2.0, 0.5), Terminal(), None)
    totals = torch.tensor([[1.0, 4.0], [torch.nan, 4.0], [torch.nan, torch.nan]], dtype=torch.float64)
    torch.testing.assert_close(rewards.weigh(totals), torch.tensor([4.0, 2.0, torch.nan], dtype=torch.float64), equal_nan=True)
