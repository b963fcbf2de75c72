"""Decoding on lanes is the scorer: every architecture, windows, any number of tokens at a time, tokens forgotten, answers that split and leave."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.generate.lanes import Lanes
from finegrain.generate.sample import probe_lanes, score_on_lanes
from finegrain.models import lane_attention
from finegrain.models.lane_attention import Feeding, KeyValues, Opening, OwnBlock, Prefixes
from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Request, fused, plain, silence_dropout, use_branched_attention
from tests.tiny import MODELS, VOCABULARY, exact_norms, plant_fault, ragged_groups

EXACT = 1e-12
"""The promise is 1e-10; a planted fault as small as that in a soft-capped model changes less."""


def wide(name: str) -> Any:
    """In float64, with norms that are kept so."""
    model = MODELS[name]().double().eval()
    exact_norms(model)
    silence_dropout(model)
    return model


def whole(groups: list[Group]) -> list[Group]:
    """The same with all answer tokens scored."""
    return [Group(group.prompt, tuple(Branch(branch.ids, np.ones(len(branch.ids), dtype=bool)) for branch in group.branches)) for group in groups]


def scored(name: str, model: Any, groups: list[Group]) -> Tensor:
    """By the plain path; transformers' soft-capped attention rounds to float32, so there by the packed path, an answer at a time."""
    if "soft-caps" not in name:
        return plain(model, groups, Request()).logp
    use_branched_attention(model)
    alone = [Group(group.prompt, (branch,)) for group in groups for branch in group.branches]
    return torch.cat([fused(model, [one], Request()).logp for one in alone])


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_decoding_is_the_scorer(name: str) -> None:
    """One to many tokens at a time, among wrong ones that are cut again; answers leave at different times."""
    model, groups = wide(name), whole(ragged_groups(long=12))
    want = scored(name, model, groups)
    for sizes in ((1,), (1, 7, 3, 2)):
        assert (score_on_lanes(model, groups, sizes) - want).abs().max() <= EXACT
    plant_fault(model)
    assert (score_on_lanes(model, groups) - want).abs().max() > EXACT
    narrow = MODELS[name]().eval()
    silence_dropout(narrow)
    assert (score_on_lanes(narrow, groups) - scored(name, narrow, groups)).abs().max() <= 1e-4


def padding_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prefixes, "mask", lambda *given: None)


def shifted_position(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Lanes._run
    monkeypatch.setattr(Lanes, "_run", lambda self, ids, positions, lanes: honest(self, ids, positions + isinstance(lanes, Feeding), lanes))


def stale_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token behind the longest answer stays that of a draft that was cut."""
    honest = Feeding.write

    def write(self: Feeding, module: Any, key: Tensor, value: Tensor) -> KeyValues:
        before = self.block.layers.get(module)
        kept = None if before is None else [part.clone() for part in before]
        found = honest(self, module, key, value)
        if kept is not None and self.lane.max() > 0:
            for part, old in zip(self.block.layers[module], kept, strict=True):
                part[0, :, int(self.own[0])] = old[0, :, int(self.own[0])] if old.shape[2] > self.own[0] else 0.0
        return found

    monkeypatch.setattr(Feeding, "write", write)


def stale_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that takes the place of another keeps the other's keys."""
    monkeypatch.setattr(OwnBlock, "move", lambda *given: None)


def prefix_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Opening.keep

    def keep(self: Opening, module: Any, key: Tensor, value: Tensor) -> None:
        honest(self, module, key, value)
        self.stack.layers[module] = KeyValues(*(part.roll(1, 0) for part in self.stack.layers[module]))

    monkeypatch.setattr(Opening, "keep", keep)


def window_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Feeding.masks_of
    monkeypatch.setattr(Feeding, "masks_of", lambda self, window, dtype: honest(self, None, dtype))


FAULTS = [padding_visible, shifted_position, stale_key, stale_slot, prefix_of_another, window_forgotten]


@torch.no_grad()
@pytest.mark.parametrize("plant", FAULTS)
def test_a_planted_fault_is_seen(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the comparison above, and by the probe at opening."""
    model, groups = wide("mistral, window 6"), whole(ragged_groups(long=12))
    want = plain(model, groups, Request()).logp
    assert probe_lanes(model, longest=100) is None
    plant(monkeypatch)
    assert (score_on_lanes(model, groups) - want).abs().max() > 1e-4
    reason = probe_lanes(model, longest=100)
    assert reason is not None
    assert "differ" in reason


@torch.no_grad()
def test_a_split_answer_is_the_beginning_of_others() -> None:
    """Twice, in a model with windows; what a branch adds changes no other one."""
    model, rng = wide("gemma3, mixed layers"), np.random.default_rng(0)
    prompt, first, second, *ends = (rng.integers(3, VOCABULARY, count) for count in (9, 5, 4, 3, 6))
    lanes = Lanes(model)
    (trunk,) = lanes.fork(lanes.open([prompt])[0], 1)
    other = lanes.fork(lanes.open([first])[0], 1)[0]
    lanes.feed([trunk, other], np.concatenate([first, second]), np.array([len(first), len(second)]))
    boughs = lanes.split(trunk, 2)
    lanes.feed([boughs[1], boughs[0]], np.concatenate([second, second[:2]]), np.array([4, 2]))
    twigs = lanes.split(boughs[1], 2)
    assert trunk.slot == boughs[1].slot == -1
    states = lanes.feed([twigs[0], other, twigs[1]], np.concatenate([ends[0], second[:1], ends[1]]), np.array([3, 1, 6]))
    for own, tokens in ((states[:3], ends[0]), (states[4:], ends[1])):
        row = torch.from_numpy(np.concatenate([prompt, first, second, tokens]))[None]
        want = model.base_model(input_ids=row, use_cache=False).last_hidden_state[0, -len(tokens) :]
        assert (own - want).abs().max() <= EXACT


@torch.no_grad()
def test_any_order_and_any_part_of_the_answers_may_be_fed() -> None:
    model, rng = wide("qwen2, window 6"), np.random.default_rng(1)
    prompts = [rng.integers(3, VOCABULARY, count) for count in (4, 11)]

    def grow(order: list[int], parts: int) -> dict[int, Tensor]:
        lanes = Lanes(model)
        grown = [lane for stem in lanes.open(prompts) for lane in lanes.fork(stem, 3)]
        found: dict[int, Tensor] = {}
        for token in (5, 6, 7):
            for part in range(parts):
                chosen = order[part::parts]
                states = lanes.feed([grown[place] for place in chosen], np.array([token + place for place in chosen]))
                found |= {place: state for place, state in zip(chosen, states, strict=True)}
        return found

    want = grow(list(range(6)), 1)
    for order, parts in (([5, 0, 3, 1, 4, 2], 1), ([2, 3, 5, 0, 1, 4], 2)):
        found = grow(order, parts)
        assert max(float((found[place] - want[place]).abs().max()) for place in want) <= EXACT


def test_the_prompt_is_kept_once_and_blocks_grow_as_needed() -> None:
    model = wide("llama")
    lanes = Lanes(model)
    stem = lanes.open([np.arange(3, 23)])[0]
    assert lanes.token_bytes == 2 * 2 * 2 * 8 * 8, "the model has as many again for its queries"
    grown = lanes.fork(stem, 50)
    for _ in range(3):
        lanes.feed(grown, np.full(50, 7))
    sizes = [part.numel() for layer in lanes._block.layers.values() for part in layer]
    assert sum(sizes) * 8 == 50 * lane_attention.FIRST_ROOM * lanes.token_bytes
    with pytest.raises(AssertionError, match="fed"):
        lanes.cut(grown[0], 4)


def test_the_model_is_left_as_it_was() -> None:
    model = MODELS["gpt2, default dropout"]().train()
    use_branched_attention(model)
    before = model.config._attn_implementation
    with torch.no_grad():
        Lanes(model).open([np.arange(3, 9)])
        assert probe_lanes(model, longest=50) is None
    assert model.training
    assert model.config._attn_implementation == before
    with pytest.raises(ValueError, match="only runs opened and fed lanes"):
        lane_attention.lane_attention(model, *[torch.zeros(1, 1, 1, 8)] * 3, None)
    with pytest.raises(NotImplementedError, match="s_aux"):
        lane_attention.lane_attention(model, *[torch.zeros(1, 1, 1, 8)] * 3, None, lanes=object.__new__(Feeding), s_aux=1)
