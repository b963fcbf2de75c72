"""Laws of every reward: one answer has one score, however it comes and whatever else is asked about with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer

from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.scoring.records import Candidates, Reward, Scores
from finegrain.scoring.tokens import align_scores, make_candidates
from tests.recipes.test_reward_credit import bytes_only
from tests.tiny import save_tiny

Opened = Callable[[], Reward]
"""A reward; at a second call the source is opened again."""
WORDS = (" good people said yes", " bad words", " the cat sat", " a dog ran after it", " yes")


def rows() -> list[Candidates]:
    """Prompts with one to three answers."""
    found = []
    for row in range(4):
        answers = {f"a{place}": Answer(content=WORDS[(row + place) % len(WORDS)]) for place in range(1 + row % 3)}
        columns = {"quality": 0.5 * row, **{f"{role}_reward": float(len(role) + row) for role in answers}}
        found.append(Candidates(row=row, made=Row(prompt=f"why {row // 2} ?", answers=answers), columns=columns))
    return found


@cache
def tokenizers() -> tuple[Any, Any]:
    """That of the tiny models, and one that knows no merges."""
    with TemporaryDirectory() as folder:
        saved = save_tiny(Path(folder))
        return AutoTokenizer.from_pretrained(saved), AutoTokenizer.from_pretrained(bytes_only(saved))


def as_tokens(candidates: Sequence[Candidates], tokenizer: Any) -> list[Candidates]:
    """The same as a caller has them who tokenised them."""
    examples = list(tokenise(((one.row, one.text) for one in candidates), tokenizer, Tokenise(max_length=64), Findings()))
    return [replace(one, columns=given.columns) for one, given in zip(make_candidates(examples, tokenizer), candidates, strict=True)]


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


def one_answer_has_one_score(opened: Opened) -> None:
    """In one call, prompt by prompt, answer by answer, and in other batches; by a source that is opened again too."""
    reward, given = opened(), rows()
    whole = list(reward.score(given))
    assert [list(found) for found in whole] == [list(one.roles) for one in given]
    all_same([found for one in given for found in reward.score([one])], whole)
    alone = [one.taking({"answer": role}) for one in given for role in one.roles]
    all_same(list(reward.score(alone)), [{"answer": scores} for found in whole for scores in found.values()])
    all_same(list(reward.with_micro_batch(1).score(iter(given))), whole)
    again = opened()
    assert again.identity() == reward.identity()
    all_same(list(again.score(given)), whole)


def tokens_and_ids_change_nothing(opened: Opened) -> None:
    """Whoever tokenised the answers: a reward reads its own tokens where they are given, and the text where another tokenizer's are."""
    reward, given = opened(), rows()
    whole = list(reward.score(given))
    own, other = tokenizers()
    all_same(list(reward.score(as_tokens(given, own))), whole)
    all_same(list(reward.score(as_tokens(given, other))), whole)
    sampled = [replace(one, ids={role: own(one.answer_text(role), add_special_tokens=False)["input_ids"] for role in one.roles}) for one in given]
    all_same(list(reward.score(sampled)), whole)


def only_a_dense_reward_scores_tokens(opened: Opened) -> None:
    """And what it scores can be put on the tokens of any caller; what it says of itself can be written down."""
    reward, given = opened(), rows()
    own = as_tokens(given, tokenizers()[0])
    for one, found in zip(own, reward.score(given), strict=True):
        for role, scores in found.items():
            if scores is None:
                continue
            assert one.tokens is not None
            response = one.tokens.responses[role]
            align_tokens = align_scores(scores, response)
            assert (align_tokens is None) == (scores.tokens is None and not scores.spans and not scores.numbers)
            assert align_tokens is None or align_tokens.mean.shape == response.ids.shape
            assert reward.dense or align_tokens is None
    assert json.loads(json.dumps([reward.identity(), reward.facts(), reward.describe()]))


LAWS = (one_answer_has_one_score, tokens_and_ids_change_nothing, only_a_dense_reward_scores_tokens)
