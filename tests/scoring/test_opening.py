"""Laws of every kind of reward in the table: one answer has one score, however it comes and whatever else is asked about with it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from finegrain.commands import resolve
from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.ops.segmenters import Windows
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates, Reward, Scores
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.signals import PrefixDifference
from finegrain.scoring.sources import SOURCES, RewardOptions, kind_of, reads_text
from finegrain.scoring.tokens import scores_on, tokenised_candidates
from tests.recipes.reward_folder import save_reward
from tests.recipes.test_reward_credit import bytes_only
from tests.recipes.test_score import moved
from tests.tiny import save_tiny

FUNCTION = """
from transformers import AutoTokenizer

def number(completions, quality, **rest):
    return [None if "cat" in text else len(text) + score for text, score in zip(completions, quality)]

def spans(completions, **rest):
    return [[(0, 2, 1.5), (2, len(text), -0.25)] for text in completions]

def each(completions, **rest):
    tokenizer = AutoTokenizer.from_pretrained("model")
    return [[float(place) for place, _ in enumerate(tokenizer(text)["input_ids"])] for text in completions]
"""
WORDS = (" good people said yes", " bad words", " the cat sat", " a dog ran after it", " yes")
KINDS = {
    "reward model, sequence": ("rm-sequence", {}),
    "reward model, differences": ("rm-ensemble", {"signal": PrefixDifference()}),
    "reward model, segments": ("rm-segment", {}),
    "implicit reward": (("policy",), {"reference": "model"}),
    "implicit reward, members": (("policy", "other"), {"reference": "model"}),
    "likelihood": ("policy", {"likelihood": "avg"}),
    "function": ("mine.py:number", {}),
    "function, spans": ("mine.py:spans", {}),
    "function, spans on tokens": ("mine.py:spans", {"tokenizer": "model"}),
    "function, numbers on tokens": ("mine.py:each", {"tokenizer": "model"}),
    "column": ("column:quality", {}),
    "column, of a role": ("column:reward", {}),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one source of every kind, which is the working directory."""
    folder = tmp_path_factory.mktemp("sources")
    model = save_tiny(folder / "model")
    moved(model, folder / "policy", 1)
    moved(model, folder / "other", 2)
    save_reward(model, folder / "rm-sequence", "sequence", SequenceHead())
    save_reward(model, folder / "rm-ensemble", "ensemble", Ensemble(members=3))
    save_reward(model, folder / "rm-segment", "segment", Segment(segmenter=Windows(size=2)))
    (folder / "mine.py").write_text(FUNCTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def opened(kind: str) -> Reward:
    """In float64, so that another batch differs in the last digits alone."""
    source, more = KINDS[kind]
    options: Any = {"runtime": lambda: open_runtime("cpu", "float64"), "max_length": 64, **more}
    return open_reward(source, RewardOptions(**options))


def rows() -> list[Candidates]:
    """Prompts with one to three answers."""
    found = []
    for row in range(7):
        answers = {f"a{place}": Answer(content=WORDS[(row + place) % len(WORDS)]) for place in range(1 + row % 3)}
        columns = {"quality": 0.5 * row, **{f"{role}_reward": float(len(role) + row) for role in answers}}
        found.append(Candidates(row=row, made=Row(prompt=f"why {row // 2} ?", answers=answers), columns=columns))
    return found


def as_tokens(candidates: Sequence[Candidates], tokenizer: Any, **more: Any) -> list[Candidates]:
    """The same as a caller has them who tokenised them."""
    examples = list(tokenise(((one.row, one.text) for one in candidates), tokenizer, Tokenise(max_length=64), Findings()))
    return [replace(one, columns=given.columns) for one, given in zip(tokenised_candidates(examples, tokenizer), candidates, strict=True)]


def same(one: Mapping[str, Scores | None], other: Mapping[str, Scores | None]) -> None:
    """Equal but for the last digits."""
    assert list(one) == list(other)
    for a, b in zip(one.values(), other.values(), strict=True):
        assert (a is None) == (b is None)
        if a is None or b is None:
            continue
        assert (a.spans, a.numbers, a.truncated) == (b.spans, b.numbers, b.truncated)
        for mine, theirs in ((a.answer, b.answer), (a.tokens, b.tokens)):
            assert (mine is None) == (theirs is None)
            for x, y in zip(mine or (), theirs or (), strict=True):
                assert (x is None) == (y is None)
                if x is not None and y is not None:
                    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def all_same(found: Sequence[Mapping[str, Scores | None]], wanted: Sequence[Mapping[str, Scores | None]]) -> None:
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("kind", KINDS)
def test_one_answer_has_one_score(kind: str) -> None:
    """In one call, prompt by prompt, answer by answer, and in other batches; by a source that is opened again too."""
    reward, given = opened(kind), rows()
    whole = list(reward.score(given))
    assert [list(found) for found in whole] == [list(one.roles) for one in given]
    all_same([found for one in given for found in reward.score([one])], whole)
    alone = [one.taking({"answer": role}) for one in given for role in one.roles]
    all_same(list(reward.score(alone)), [{"answer": scores} for found in whole for scores in found.values()])
    all_same(list(reward.with_micro_batch(1).score(iter(given))), whole)
    again = opened(kind)
    assert again.identity() == reward.identity()
    all_same(list(again.score(given)), whole)


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_sampled_ids_change_nothing(kind: str) -> None:
    """Whoever tokenised the answers: a reward reads its own tokens where they are given, and the text where another tokenizer's are."""
    reward, given = opened(kind), rows()
    whole = list(reward.score(given))
    own = AutoTokenizer.from_pretrained("model")
    all_same(list(reward.score(as_tokens(given, own))), whole)
    other = AutoTokenizer.from_pretrained(bytes_only(save_tiny(Path("bytes"))))
    all_same(list(reward.score(as_tokens(given, other))), whole)
    sampled = [replace(one, ids={role: own(one.answer_text(role), add_special_tokens=False)["input_ids"] for role in one.roles}) for one in given]
    all_same(list(reward.score(sampled)), whole)


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_dense_reward_scores_tokens(kind: str) -> None:
    """And what it scores can be put on the tokens of any caller; what it says of itself can be written down."""
    reward, given = opened(kind), rows()
    own = as_tokens(given, AutoTokenizer.from_pretrained("model"))
    for one, found in zip(own, reward.score(given), strict=True):
        for role, scores in found.items():
            if scores is None:
                continue
            assert one.tokens is not None
            response = one.tokens.responses[role]
            on_tokens = scores_on(scores, response)
            assert (on_tokens is None) == (scores.tokens is None and not scores.spans and not scores.numbers)
            assert on_tokens is None or on_tokens.mean.shape == response.ids.shape
            assert reward.dense or on_tokens is None
    assert json.loads(json.dumps([reward.identity(), reward.facts(), reward.describe()]))


def test_every_kind_of_the_table_is_tried() -> None:
    tried = {kind.partition(",")[0] for kind in KINDS}
    assert tried == {one.name for one in SOURCES}
    for one in SOURCES:
        assert callable(resolve(one.opens))
        assert bool(one.form) == bool(one.pattern)
    options = RewardOptions(runtime=lambda: None, max_length=64)
    assert kind_of("folder", options).name == "reward model"
    assert kind_of("folder", replace(options, reference="other")).name == "implicit reward"
    assert kind_of("folder", replace(options, likelihood="sum")).name == "likelihood"
    assert (reads_text("a.py:f"), reads_text("column:x"), reads_text("folder")) == (True, True, False)
