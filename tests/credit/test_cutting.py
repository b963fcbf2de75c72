"""Cutting by text: sentences and parses on tokens, and the scale by place of the authors' segment rewards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finegrain.credit.answers import CreditedAnswer, find_signals
from finegrain.credit.cutting import CreditSegmenter, cut_answers, sentence_starts
from finegrain.credit.reward_allocations import place_rewards
from finegrain.credit.signals import Column
from finegrain.errors import CreditError
from finegrain.ops.location import EndOnly, EvenSplit, LocationNormaliser, Repeat, Spread
from finegrain.ops.segments import segment_ends, without_closing
from finegrain.ops.text_segmenters import Constituents, EntropyCutoff, Perplexity, RandomNGram, Sentences
from tests.credit.fake import FakeContext
from tests.credit.test_text_signals import of_texts

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "segment-reward.json").read_text())["cases"]
    if "segment_reward_per_token" in case["outputs"]
]
SPREADS: dict[str, Spread] = {"segment_normalization": EvenSplit(), "same_segment_last": Repeat(), "every_segment_last": EndOnly()}


def cut(segmenter: CreditSegmenter, context: FakeContext) -> dict[str, list[list[int]]]:
    answers: list[CreditedAnswer] = find_signals(context, Column()(context))
    ids = cut_answers(segmenter, context, answers)
    return {role: [own.tolist() for own, answer in zip(ids, answers, strict=True) if answer.role == role] for role in context.signs}


def of_text(text: str) -> FakeContext:
    context = of_texts([text], [text], ["q"])
    return replace(context, column={role: [np.zeros(len(text))] for role in context.signs})


@pytest.mark.parametrize(
    ("text", "starts"), [("One. Two!\nThree", [0, 5, 10]), ("1.5 is a number", [0]), ("End. ", [0]), ("", [0]), ("a\n\nb? c", [0, 3, 6])]
)
def test_sentences_start(text: str, starts: list[int]) -> None:
    assert sentence_starts(text) == starts


def test_sentences_on_tokens() -> None:
    assert cut(Sentences(), of_text("Ab. c\ndef"))["chosen"] == [[0, 0, 0, 0, 1, 1, 2, 2, 2]]


def test_parses_on_tokens_and_answers_without_one() -> None:
    context = of_text("ab cd ef")
    parses = {"chosen": ["(S (A ab) (B (C cd) (D ef)))"], "rejected": [None]}
    both = cut(Constituents(most=6), replace(context, parse={**parses, "rejected": parses["chosen"]}))
    assert both["chosen"] == [[0, 0, 0, 1, 1, 1, 1, 1]]
    with pytest.raises(CreditError, match="the column rejected_parse, which no row has"):
        cut(Constituents(), replace(context, parse=parses))
    rows = of_texts(["ab cd", "ab cd"], ["ab cd", "ab cd"], ["q", "r"])
    half = replace(rows, column={role: [np.zeros(5)] * 2 for role in rows.signs}, parse={role: ["(S (A ab) (B cd))", None] for role in rows.signs})
    assert cut(Constituents(most=4), half)["chosen"] == [[0, 0, 0, 1, 1], [0] * 5]


def test_a_parse_of_another_text() -> None:
    with pytest.raises(CreditError, match=r"row 0, (chosen|rejected): the parse has the word 'dog', which does not follow"):
        cut(Constituents(), replace(of_text("a cat"), parse={role: ["(S (A a) (B dog))"] for role in ("chosen", "rejected")}))


def test_what_the_start_model_says_and_the_tokens_are_read() -> None:
    context = of_text("abcdefgh")
    roles = tuple(context.signs)
    entropy, surprisal = np.array([0, 0, 3, 0, 0, 3, 0, 0.0]), np.array([1, 0, 0, 5, 4, 3, 2, 1.0])
    given = replace(context, entropy={role: [entropy] for role in roles}, surprisal={role: [surprisal] for role in roles})
    assert cut(EntropyCutoff(), given)["rejected"] == [[0, 0, 1, 1, 1, 2, 2, 2]]
    assert cut(Perplexity(), given)["rejected"] == [[0, 0, 0, 1, 1, 1, 1, 1]]
    assert cut(RandomNGram(), given)["chosen"] == cut(RandomNGram(), given)["rejected"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_entropy_segments_and_the_scale_by_place_are_those_of_segment_reward(case: dict[str, dict[str, object]]) -> None:
    params, inputs, outputs = case["params"], case["inputs"], case["outputs"]
    masks = [np.array(row, dtype=bool) for row in inputs["response_mask"]]
    entropy = [np.roll(np.array(row), 1) for row in inputs["entropy_at_token"]]  # theirs stands on the token after which it is read
    context = FakeContext(
        signs={"chosen": np.ones(len(masks))},
        role_masks={"chosen": masks},
        column={"chosen": [np.array(row) for row in inputs["rm_value_at_token"]]},
        entropy={"chosen": entropy},
    )
    answers = find_signals(context, Column()(context))
    ids = torch.stack(cut_answers(EntropyCutoff(cutoff=params["entropy_threshold"]), context, answers))
    mask = torch.from_numpy(np.stack(masks))
    inside = without_closing(ids, mask)
    assert [row.nonzero()[:, 0].tolist() for row in segment_ends(inside)] == outputs["segment_ends"]
    slope, std_slope, mean, std = params["norm_params[mean_w,std_w,mean_b,std_b]"]
    normalise = LocationNormaliser(mean_slope=slope, std_slope=std_slope, mean_at_end=mean, std_at_end=std)
    values = torch.stack([answer.scored.mean for answer in answers])
    placed = place_rewards(normalise, SPREADS[params["mode"]], values, inside, inside >= 0)
    np.testing.assert_allclose(placed, outputs["segment_reward_per_token"], rtol=1e-5, atol=1e-6)
