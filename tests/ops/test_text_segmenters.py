"""Segments of macro actions and of entropies: the authors' boundaries, random lengths, rises of the perplexity."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain.ops.segmenters import Windows
from finegrain.ops.segments import segment_ends, without_closing
from finegrain.ops.text_segmenters import LENGTHS, AtRise, BeforeRise, Constituents, EntropyCutoff, Perplexity, RandomNGram, Sentences

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "parts" / "ma-rlhf.json").read_text())["cases"]


def starts(ids: Tensor) -> list[int]:
    """Where segments begin, without the closing token, which the authors leave alone."""
    found = without_closing(ids, ids >= 0)[0]
    return [place for place in range(len(found)) if found[place] >= 0 and (place == 0 or found[place] != found[place - 1])]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_boundaries_of_the_authors(case: dict[str, Any]) -> None:
    """Fixed n-grams and rises of the perplexity; their last boundary is the closing token, which is a segment of its own there."""
    length = case["boundaries"][-1] + 1
    mask = torch.ones(1, length, dtype=torch.bool)
    values = torch.zeros(1, length) if case["ppl"] is None else torch.tensor([case["ppl"]])
    segmenter = Windows(size=case["n"]) if case["termination"] == "fixed" else Perplexity(start=BeforeRise())
    assert [*starts(segmenter(values, mask)), length - 1] == case["boundaries"]


def test_a_segment_starts_at_the_rising_token_or_before_it() -> None:
    values, mask = torch.tensor([[2.0, 1.0, 3.0, 3.0, 4.0, 1.0, 9.0]]), torch.ones(1, 7, dtype=torch.bool)
    assert Perplexity(start=AtRise())(values, mask).tolist() == [[0, 0, 1, 1, 2, 2, 2]]  # equal is no rise; the closing token starts none
    assert Perplexity(start=BeforeRise())(values, mask).tolist() == [[0, 1, 1, 2, 2, 3, 3]]


def test_another_turn_is_no_rise() -> None:
    mask = torch.tensor([[True, True, True, False, True, True, True]])
    assert Perplexity()(torch.tensor([[3.0, 2.0, 1.0, 99.0, 8.0, 7.0, 6.0]]), mask).tolist() == [[0, 0, 0, -1, 1, 1, 1]]


def test_random_lengths_are_those_of_the_list_and_depend_on_the_answer_alone() -> None:
    tokens = torch.arange(400.0)[None]
    mask = torch.ones(1, 400, dtype=torch.bool)
    segmenter = RandomNGram(repeats=3)
    ids = segmenter(tokens, mask)
    lengths = torch.bincount(ids[0]).tolist()
    assert sorted(lengths[:-1]) == sorted(LENGTHS * 3)  # 63 tokens, then the rest
    assert lengths[-1] == 400 - 63
    assert lengths[:-1] != sorted(lengths[:-1])
    two = torch.stack([tokens[0].flip(0), tokens[0]])
    again = segmenter(two, torch.ones(2, 400, dtype=torch.bool))
    assert torch.equal(again[1], ids[0])
    assert not torch.equal(again[0], ids[0])
    assert not torch.equal(RandomNGram(repeats=3, seed=1)(tokens, mask), ids)
    left = torch.nn.functional.pad(tokens, (5, 3)), torch.nn.functional.pad(mask, (5, 3))
    assert torch.equal(segmenter(*left)[:, 5:-3], ids)


def test_every_turn_begins_anew() -> None:
    mask = torch.tensor([[True] * 30 + [False] * 2 + [True] * 30])
    ids = RandomNGram(repeats=1)(torch.arange(62.0)[None], mask)[0]
    assert ids[31] == -1
    assert ids[32] == ids[29] + 1
    first, second = ids[:30], ids[32:] - ids[32]
    assert sorted(torch.bincount(first).tolist()[:5]) == sorted(LENGTHS)
    assert sorted(torch.bincount(second).tolist()[:5]) == sorted(LENGTHS)


def test_entropies_end_by_the_authors_rule() -> None:
    """c = 0: every token, the closing one merged away; above every entropy: one segment; seven tokens without a peak end at 5."""
    entropy, mask = torch.ones(1, 7), torch.ones(1, 7, dtype=torch.bool)
    for cutoff, ends in ((0.0, [0, 1, 2, 3, 4, 5]), (1.0, [5]), (1000.0, [5])):
        ids = without_closing(EntropyCutoff(cutoff=cutoff)(entropy, mask), mask)
        assert segment_ends(ids)[0].nonzero()[:, 0].tolist() == ends


@pytest.mark.parametrize("segmenter", [Sentences(), Constituents()])
def test_numbered_text_starts_where_the_number_changes(segmenter: Any) -> None:
    numbers = torch.tensor([[0.0, 0, 1, 1, 1, 2, 2]])
    assert segmenter(numbers, torch.ones(1, 7, dtype=torch.bool)).tolist() == [[0, 0, 1, 1, 1, 2, 2]]
