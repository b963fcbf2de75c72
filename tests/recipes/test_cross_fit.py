"""The run's own scorer: what it makes of pairs and spans, and that no row is scored by a table that has seen it.

Test of recipes/training/own_scorer.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.signals import Table
from finegrain.credit.token_reward import TokenReward
from finegrain.data.load import load_examples
from finegrain.data.planted import Planted, World, add_annotations, make_pairs, write_jsonl
from finegrain.data.records import Example, Shape
from finegrain.data.spans import spans_to_tokens
from finegrain.data.truncate import Tokenise
from finegrain.errors import CreditError
from finegrain.ops.word_features import TokenType
from finegrain.recipes.demo.base import word_tokenizer
from finegrain.recipes.training.own_scorer import PAIR, ScoredRows, find_types, score_by_table
from tests.credit.fake import FakeContext

WORLD = World(Planted(sentences=3, sentence_types=12, good=0.25, bad=0.25, temperature=0.5, annotated=0.5), 5)


def examples_of(folder: Path, rows: Sequence[dict[str, object]]) -> list[Example]:
    file = write_jsonl(folder / "rows.jsonl", rows)
    return list(load_examples(str(file), word_tokenizer(), shape=Shape.PREFERENCE, settings=Tokenise()).examples)


def table_of(examples: Sequence[Example], seed: int = 0, *, spans: bool = False) -> ScoredRows:
    masks = {role: [example.responses[role].mask for example in examples] for role in PAIR}
    none = {role: [None] * len(examples) for role in PAIR}
    marks = {
        role: [None if (own := e.spans[role]) is None else spans_to_tokens(own, e.responses[role].offsets, outside=1.0) for e in examples]
        for role in PAIR
    }
    return score_by_table(examples, PAIR, masks, marks if spans else none, seed)


def context_of(examples: Sequence[Example], table: ScoredRows) -> FakeContext:
    masks = {role: [example.responses[role].mask for example in examples] for role in PAIR}
    count = len(examples)
    return FakeContext(signs={"chosen": np.ones(count), "rejected": -np.ones(count)}, role_masks=masks, table=table.scores)


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, object]]:
    return add_annotations(make_pairs(WORLD, 80, stream=0), WORLD.settings, WORLD.seed)


def swapped(row: dict[str, object]) -> dict[str, object]:
    turned = {"chosen": "rejected", "rejected": "chosen"}
    return {
        turned.get(name.partition("_")[0], "") + name[len(name.partition("_")[0]) :] if name != "prompt" else name: value
        for name, value in row.items()
    }


@pytest.mark.slow
def test_no_row_is_scored_by_a_table_that_has_seen_it(tmp_path: Path, pairs: list[dict[str, object]]) -> None:
    """Swapping the answers of a pair leaves its own scores as they are, and changes those of rows of other parts; spans of the row likewise."""
    examples = examples_of(tmp_path, pairs)
    for spans in (False, True):
        before = table_of(examples, spans=spans)
        other = examples_of(tmp_path, [swapped(row) if place == 3 else row for place, row in enumerate(pairs)])
        after = table_of(other, spans=spans)
        for one, two in (PAIR, PAIR[::-1]):
            np.testing.assert_allclose(after.scores[two][3].mean, before.scores[one][3].mean, atol=1e-6)
        moved = [row for row in range(80) if row != 3 and (after.scores["chosen"][row].mean - before.scores["chosen"][row].mean).abs().max() > 1e-6]
        assert 40 < len(moved) < 79, "the rows of its own part are scored as before"
    marked = [place for place, row in enumerate(pairs) if row["chosen_spans"] is not None]
    unmarked = [{**row, "chosen_spans": None} if place == marked[0] else row for place, row in enumerate(pairs)]
    again = table_of(examples_of(tmp_path, unmarked), spans=True)
    np.testing.assert_allclose(again.scores["chosen"][marked[0]].mean, before.scores["chosen"][marked[0]].mean, atol=1e-6)


def test_rows_of_one_prompt_stay_together(tmp_path: Path, pairs: list[dict[str, object]]) -> None:
    """A pair and its copy are scored by one table, which has seen neither."""
    rows = [
        {**row, "prompt": f"How do I look after a brass {name}?"}
        for row, name in zip(pairs, ("tray", "bowl", "lamp", "clock", "box", "vase", "cup", "pan", "jug", "door") * 8, strict=True)
    ]
    table = table_of(examples_of(tmp_path, [*rows, *rows]))
    for row in range(80):
        torch.testing.assert_close(table.scores["chosen"][row].mean, table.scores["chosen"][80 + row].mean)


def test_it_puts_pairs_in_order_and_says_how_many(tmp_path: Path, pairs: list[dict[str, object]]) -> None:
    examples = examples_of(tmp_path, pairs)
    table, again = table_of(examples), table_of(examples)
    margins = [float(table.scores["chosen"][row].mean.sum() - table.scores["rejected"][row].mean.sum()) for row in range(80)]
    right = float(np.mean(np.array(margins) > 0))
    assert table.facts["accuracy"]["mean"] == right > 0.6
    assert table.facts["accuracy"]["low"] > 0.5
    assert f"{right:.0%}" in table.describe()
    for role in PAIR:
        for one, two in zip(table.scores[role], again.scores[role], strict=True):
            torch.testing.assert_close(one.mean, two.mean, rtol=0, atol=0)
    assert table_of(examples, 1).facts["accuracy"] != table.facts["accuracy"], "another seed has other parts"


@pytest.mark.slow
def test_spans_on_a_part_of_the_answers_sharpen_the_scores_of_all(tmp_path: Path) -> None:
    """Of answers that nobody marked, in three worlds."""
    agreement: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        world = World(WORLD.settings, seed)
        examples = examples_of(tmp_path, add_annotations(make_pairs(world, 40, stream=0), world.settings, seed))
        for spans, found in agreement.items():
            table = table_of(examples, spans=spans)
            sentences = [
                (float(one.mean[inside].sum()), quality)
                for role in PAIR
                for e, one in zip(examples, table.scores[role], strict=True)
                if e.spans[role] is None
                for start, end, quality in world.read(e.prompt_text, e.responses[role].text).spans
                if (inside := torch.from_numpy(spans_to_tokens([(start, end, 1.0)], e.responses[role].offsets, outside=0.0) > 0)).any()
            ]
            found.append(np.corrcoef(np.array(sentences).T)[0, 1])
    assert np.mean(agreement[True]) > np.mean(agreement[False]) + 0.08


def test_the_table_reads_the_columns_of_its_pairs(tmp_path: Path) -> None:
    """Of losses of pairs: a label that is as likely wrong and a row of weight 0 say nothing; a flipped row says the opposite."""
    rows = make_pairs(WORLD, 80, stream=0)
    plain = table_of(examples_of(tmp_path, rows))
    for column in ({"label_prob": 0.5}, {"weight": 0.0}):
        table = table_of(examples_of(tmp_path, [{**row, **column} for row in rows]))
        assert max(float(one.mean.abs().max()) for one in table.scores["chosen"]) < 1e-3, column
        assert ("accuracy" in table.facts) == ("weight" in column)
    turned = table_of(examples_of(tmp_path, [{**row, "flip": 1} for row in rows]))
    assert turned.facts["accuracy"] == plain.facts["accuracy"]
    for one, other in zip(turned.scores["chosen"], plain.scores["chosen"], strict=True):
        np.testing.assert_allclose(one.mean, -other.mean, atol=1e-4)
    unsure = table_of(examples_of(tmp_path, [{**row, "label_prob": 0.8} for row in rows]))
    size = lambda table: float(np.mean([float(one.mean.abs().mean()) for one in table.scores["chosen"]]))
    assert size(unsure) < size(plain)


def test_labels_that_say_nothing_give_dpo_and_the_reference(tmp_path: Path, pairs: list[dict[str, object]]) -> None:
    """Every pair in both directions: exact zeros, soft weights of one half (dpo with half of beta), targets of zero; and a mask keeps nothing."""
    contradicted = [row for pair in pairs[:30] for row in (pair, swapped(pair))]
    examples = examples_of(tmp_path, [{**row, "chosen_spans": None, "rejected_spans": None} for row in contradicted])
    table = table_of(examples)
    nothing = replace(
        context_of(examples, table),
        table={role: [one._replace(mean=torch.where(one.mean.abs() < 1e-3, 0.0, one.mean)) for one in rows] for role, rows in table.scores.items()},
    )
    for column in Confidence(signal=Table()).prepare(nothing).values():
        assert all(np.array_equal(weight, np.where(mask, 0.5, 0.0)) for weight, mask in zip(column.weight, nothing.masks("chosen"), strict=True))
    for column in TokenReward(signal=Table()).prepare(nothing).values():
        assert all(not reward.any() for reward in column.reward)
    with pytest.raises(CreditError, match=r"keeps 0\.0%"):
        ASR(signal=Table()).prepare(nothing)


def test_types_are_words_with_pieces_and_without_case(model: Path) -> None:
    from finegrain.data.records import Response

    text = "Good gooder, 😀 x"
    offsets = np.array([[0, 4], [4, 9], [9, 11], [11, 12], [12, 14], [14, 16], [0, 0]], dtype=np.int32)
    response = Response(np.arange(7, dtype=np.int32), np.ones(7, dtype=bool), offsets, text)
    assert find_types(response) == [
        TokenType(0, "good"), TokenType(1, "gooder"), TokenType(2, "gooder"), TokenType(3, ","),
        TokenType(4, "😀"), TokenType(5, "x"), TokenType(6, ""),
    ]  # fmt: skip


def test_too_few_rows_are_an_error(tmp_path: Path, pairs: list[dict[str, object]]) -> None:
    with pytest.raises(CreditError, match="9 rows are too few"):
        table_of(examples_of(tmp_path, pairs[:9]))
