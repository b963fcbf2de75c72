"""What goes into a store comes out of it, whatever the view; the split and the plan read its index alone."""

import dataclasses
import gc
import hashlib
import os
import resource

import numpy as np
import pytest

from finegrain.data.holdout import MOST_HELD_OUT, split_holdout
from finegrain.data.records import Example, Response
from finegrain.data.store import collect, token_lengths
from finegrain.errors import DataError
from finegrain.models.score import make_group
from finegrain.recipes.training.data import add_mismatched
from finegrain.train.collate import TrainingSet
from finegrain.types import CharSpan
from tests.data.tiny import marked
from tests.tiny import examples

ROLES = ("chosen", "rejected")
TEXTS = ("", "plain", "naïve 🐈 café", "\ud83d half a pair", "é" * 40_000, "x" * 65_535, "x" * 65_536)


def awkward(count: int = 40, seed: int = 0) -> list[Example]:
    """Ragged rows with every kind of text, spans and rewards, also none and empty ones."""
    rng = np.random.default_rng(seed)
    made = []
    for row, plain in enumerate(examples(count, seed)):
        responses = {}
        for place, (role, old) in enumerate(plain.responses.items()):
            text = TEXTS[(row + place) % len(TEXTS)]
            last = np.sort(rng.integers(0, len(text) + 1, (len(old.ids), 2)).astype(np.int32), axis=1)
            responses[role] = Response(old.ids, rng.random(len(old.ids)) < 0.5, last, text)
        spans = {"chosen": [None, [], marked((0, 3, -1.0), (2**40, 2**41, 0.1))][row % 3], "rejected": [marked((1, 2, float("inf"))), None][row % 2]}
        if row % 5 == 0 and spans["chosen"]:
            spans["chosen"] = [*spans["chosen"], CharSpan(1, 2, -1.0, 0.25, "naïve 🐈", "anna"), CharSpan(4, 9, 0.0, aspect="\u2028")]
        looked = {"chosen": ("anna", "bert")} if row % 7 == 0 and spans["chosen"] is not None else {}
        rewards = {"chosen": None, "rejected": rng.normal(size=len(responses["rejected"].ids)).astype(np.float32) if row % 4 else None}
        columns = {"weight": float(rng.normal()), "margin": float(row)}
        texts = {"row": row * 3, "prompt_text": TEXTS[(row // 2) % len(TEXTS)], "columns": columns}
        made.append(dataclasses.replace(plain, responses=responses, spans=spans, token_rewards=rewards, annotators=looked, **texts))
    return made


def assert_same(found: Example, given: Example) -> None:
    assert (found.row, found.prompt_text, found.columns, found.spans) == (given.row, given.prompt_text, given.columns, given.spans)
    assert found.annotators == given.annotators
    same(found.prompt, given.prompt)
    assert list(found.responses) == list(given.responses)
    for role, answer in given.responses.items():
        assert found.responses[role].text == answer.text
        for name in ("ids", "mask", "offsets"):
            same(getattr(found.responses[role], name), getattr(answer, name))
    assert found.token_rewards.keys() == given.token_rewards.keys()
    for role, values in given.token_rewards.items():
        assert (found.token_rewards[role] is None) == (values is None)
        if values is not None:
            same(found.token_rewards[role], values)


def same(found: np.ndarray, given: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (given.dtype, given.shape)
    assert found.flags.aligned
    np.testing.assert_array_equal(found, given)


def test_every_field_comes_back() -> None:
    rows = awkward()
    store = collect(iter(rows))
    assert len(store) == len(rows)
    for found, given in zip(store, rows, strict=True):
        assert_same(found, given)
    assert_same(store[-1], rows[-1])
    with pytest.raises(IndexError):
        store[len(rows)]


def test_views_of_views() -> None:
    rows = awkward()
    store = collect(rows)
    for found, given in zip(store[3::4], rows[3::4], strict=True):
        assert_same(found, given)
    mask = np.arange(len(rows)) % 3 == 1
    for found, given in zip(store.take(mask)[::-1].take(np.array([0, 5, 2])), [rows[1::3][::-1][i] for i in (0, 5, 2)], strict=True):
        assert_same(found, given)
    assert len(store[5:5]) == 0
    assert list(store[5:5]) == []


def test_lengths_and_counts_come_from_the_index() -> None:
    rows = awkward()
    store = collect(rows)[::2]
    prompts, answers = token_lengths(store, ROLES)
    for found, given in zip([prompts, *answers], [token_lengths(rows[::2], ROLES)[0], *token_lengths(rows[::2], ROLES)[1]], strict=True):
        np.testing.assert_array_equal(found, given)
    packed = [make_group(row, ROLES).tokens for row in rows[::2]]
    assert TrainingSet(store).packed_tokens(ROLES).tolist() == TrainingSet(rows[::2]).packed_tokens(ROLES).tolist() == packed
    for role in ROLES:
        assert store.annotated(role) == sum(row.spans[role] is not None for row in rows[::2])
        assert store.rewarded(role) == sum(row.token_rewards[role] is not None for row in rows[::2])
        assert store.trained_lengths(role).tolist() == [int(row.responses[role].mask.sum()) for row in rows[::2]]


@pytest.mark.parametrize("first", [{"a": 1.0, "b": 2.0}, {"b": 2.0}, {}])
def test_columns_that_some_rows_lack_are_named_and_left_out(first: dict[str, float]) -> None:
    one, two = examples(2)
    store = collect([dataclasses.replace(one, columns=first), dataclasses.replace(two, columns={"c": 3.0, "b": 4.0})])
    everywhere = sorted(first.keys() & {"b", "c"})
    assert store.columns == everywhere
    assert store.files.partial == tuple(sorted((first.keys() | {"b", "c"}) - set(everywhere)))
    assert [row.columns for row in store] == [{name: first[name] for name in everywhere}, {name: 4.0 for name in everywhere}]


def test_an_empty_store() -> None:
    store = collect([])
    assert (len(store), list(store), store.roles, store.columns) == (0, [], (), [])


def naive_split(rows: list[Example], share: float, seed: int) -> tuple[list[int], list[int]]:
    """What the split was before rows were stored: the law that existing runs rely on."""
    prompts: dict[str, list[int]] = {}
    for index, example in enumerate(rows):
        prompts.setdefault(hashlib.sha256(example.prompt.tobytes()).hexdigest(), []).append(index)
    want = min(MOST_HELD_OUT, round(share * len(rows)))
    held: set[int] = set()
    keys = sorted(prompts)
    for place in np.random.default_rng([seed, 1]).permutation(len(keys)):
        if len(held) >= want:
            break
        if len(held) + len(prompts[keys[place]]) <= max(want, 1):
            held.update(prompts[keys[place]])
    return [row.row for i, row in enumerate(rows) if i not in held], [row.row for i, row in enumerate(rows) if i in held]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.4, 0.9])
def test_the_split_holds_out_the_rows_it_always_did(share: float) -> None:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, 97, 4).astype(np.int32) for _ in range(130)]
    for seed in range(6):
        rows = [dataclasses.replace(row, prompt=prompts[int(rng.integers(0, 130) ** 2 // 130)]) for row in examples(300, seed)]
        train, held, _ = split_holdout(collect(rows), share, seed)
        assert ([row.row for row in train], [row.row for row in held]) == naive_split(rows, share, seed)


def test_rows_of_one_prompt_cannot_be_split() -> None:
    (row,) = examples(1)
    with pytest.raises(DataError, match="share one prompt"):
        split_holdout(collect([row]), 0.9, 0)


FEW = [(400, "a", "share 1 prompt"), (1000, "ab", "share 2 prompts"), (40, "a", "only 2 held-out rows")]


@pytest.mark.parametrize(("rows", "letters", "words"), FEW)
def test_where_no_prompt_fits_single_rows_are_held_out_and_it_is_said(rows: int, letters: str, words: str) -> None:
    made = [dataclasses.replace(row, row=i, prompt=np.array([3 + i % len(letters)], np.int32)) for i, row in enumerate(examples(1) * rows)]
    store = collect(made)
    train, held, said = split_holdout(store, 0.05, 0)
    assert len(held) == round(0.05 * rows)
    assert sorted(row.row for half in (train, held) for row in half) == list(range(rows))
    assert any(words in line for line in said)
    assert len(said) == 1 + (len(held) < 30)
    assert [row.row for row in split_holdout(store, 0.05, 0).held] == [row.row for row in held]
    assert not len(split_holdout(store, 0.05, 0, single_rows=False).held)


@pytest.mark.parametrize("prompts", ["ab", "aab", "abbba", "abacaaa", "aabbccaa"])
def test_a_mismatched_answer_is_the_next_of_another_prompt(prompts: str) -> None:
    rows = [dataclasses.replace(row, prompt_text=letter) for row, letter in zip(examples(len(prompts), roles=("answer",)), prompts, strict=True)]
    found = add_mismatched(collect(rows))
    assert token_lengths(found, ("answer", "mismatched"))[1][1].tolist() == [len(row.responses["mismatched"].ids) for row in found]
    for index, row in enumerate(found):
        step = next(step for step in range(1, len(rows)) if prompts[(index + step) % len(rows)] != prompts[index])
        np.testing.assert_array_equal(row.responses["mismatched"].ids, rows[(index + step) % len(rows)].responses["answer"].ids)
        assert row.spans.keys() == {"answer"}
    assert len(found[1:][0].responses) == 2
    np.testing.assert_array_equal(found[1:][0].responses["mismatched"].ids, found[1].responses["mismatched"].ids)
    with pytest.raises(DataError, match="share one prompt"):
        add_mismatched(collect(rows[:1] * 3))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before, limits = descriptors(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot keep the tokenised rows in .*: File too large; set TMPDIR"):
            collect(row for _ in range(400) for row in awkward(8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="set TMPDIR"):
        collect(awkward(2))


def test_the_files_go_with_the_last_view(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descriptors()
    view = collect(awkward())[::2]
    ids = view[0].responses["chosen"].ids
    assert list(tmp_path.iterdir()) == []
    del view
    gc.collect()
    assert ids.tolist() == awkward()[0].responses["chosen"].ids.tolist()
    del ids
    gc.collect()
    assert descriptors() == before


def test_an_error_among_the_rows_passes_through() -> None:
    def rows():
        yield from examples(3)
        raise DataError("file:4: not JSON")

    before = descriptors()
    with pytest.raises(DataError, match="file:4"):
        collect(rows())
    assert descriptors() == before
