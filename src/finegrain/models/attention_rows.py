"""What the last scored token of an answer attends to in the last layer, from the pass over packed rows that the head's outputs come from.

Stock models return attention of every layer, every position and every row, and only from their slow form; here the row of one query is computed
from that layer's own queries and keys, after rotary embedding and normalisation, as the packed attention receives them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.models.attention import NAME, WatchedRows
from finegrain.models.packing import Group, pack
from finegrain.models.score import Precision, PromptWithAnswers, share_prompts, split_by_budget
from finegrain.models.scorer import Scorer, causal_lm, fused, head_outputs
from finegrain.types import Ragged

Row = Float[Tensor, "H T"]
"""float32, head by head, over the answer's tokens; what the prompt gets is missing from its sum."""


class HeadWithRows(NamedTuple):
    """By role, one item per example."""

    outputs: dict[str, Ragged]
    """(T, K) outputs of the head, 0 where the mask is False."""
    rows: dict[str, list[Row]]


def has_rows(scorer: Scorer) -> bool:
    """Whether the scorer's model runs on packed rows, whose attention function can be asked."""
    return scorer.path is fused and causal_lm(scorer.model).config._attn_implementation == NAME


def read_head_and_rows(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> HeadWithRows | None:
    """The head's outputs and the attention rows of all answers; None where the model's last layer cannot be watched."""
    outputs: dict[str, Ragged] = {role: [np.zeros(0, dtype=np.float32)] * len(examples) for role in roles}
    rows: dict[str, list[Row]] = {role: [torch.zeros(0)] * len(examples) for role in roles}
    shared = share_prompts(examples, roles, precision.micro_tokens)
    was_training = scorer.training
    scorer.eval()
    try:
        with torch.no_grad(), precision.autocast():
            for part in split_by_budget([group.tokens for group, _ in shared], precision.micro_tokens):
                groups, owners = zip(*(shared[index] for index in part), strict=True)
                read = _read(scorer, groups)
                if read is None:
                    return None
                for own, row, users in zip(*read, [users for owned in owners for users in owned], strict=True):
                    for role, index in users:
                        outputs[role][index], rows[role][index] = own, row
    finally:
        scorer.train(was_training)
    return HeadWithRows(outputs, rows)


def _read(scorer: Scorer, groups: Sequence[Group]) -> tuple[Ragged, list[Row]] | None:
    """Outputs and rows of all answers of one packed row, in packed order."""
    assert scorer.head is not None
    packed, lm = pack(groups, device=scorer.device), causal_lm(scorer.model)
    watched = WatchedRows(int(lm.config.get_text_config().num_hidden_layers) - 1, _queries(groups), [])
    states = lm.base_model(
        input_ids=packed.input_ids, position_ids=packed.position_ids, branches=packed.branches, watched=watched, use_cache=False
    ).last_hidden_state[0]
    branches = [branch for group in groups for branch in group.branches]
    if len(watched.found) != len(branches):
        return None
    flat = head_outputs(scorer.head, states.index_select(0, packed.reads)).cpu().numpy()
    outputs, rows, start = [], [], 0
    for branch, row in zip(branches, watched.found, strict=True):
        own = np.zeros((len(branch.ids), *flat.shape[1:]), dtype=flat.dtype)
        own[branch.mask] = flat[start : start + int(branch.mask.sum())]
        start += int(branch.mask.sum())
        outputs.append(own)
        rows.append(torch.nn.functional.pad(row.float().cpu(), (0, len(branch.ids) - row.shape[1])))
    return outputs, rows


def _queries(groups: Sequence[Group]) -> list[tuple[range, range]]:
    """By answer, the places of its prompt in the packed row, and of its own tokens up to the last scored one."""
    found, start = [], 0
    for group in groups:
        prompt = range(start, start + len(group.prompt))
        start = prompt.stop
        for branch in group.branches:
            found.append((prompt, range(start, start + int(np.flatnonzero(branch.mask)[-1]) + 1)))
            start += len(branch.ids)
    return found
