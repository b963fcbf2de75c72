"""A frozen model's representation of whole answers: the hidden state after the last scored token."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from finegrain.models.score import Precision, PromptWithAnswers, make_group, split_by_budget
from finegrain.models.scorer import Request, Scorer


def compute_last_features(
    scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision
) -> dict[str, Float[np.ndarray, "N H"]]:
    """By role, one row per answer, float32 or wider; zeros where no token is scored."""
    found: dict[str, list[np.ndarray]] = {role: [] for role in roles}
    was_training = scorer.training
    scorer.eval()
    with torch.no_grad(), precision.autocast():
        for part in split_by_budget([make_group(example, roles).tokens for example in examples], precision.micro_tokens):
            groups = [make_group(examples[place], roles) for place in part]
            values = scorer(groups, Request(False, features=True)).features
            assert values is not None
            flat = (values if values.dtype == torch.float64 else values.float()).cpu().numpy()
            start = 0
            for group in groups:
                for role, branch in zip(roles, group.branches, strict=True):
                    count = int(branch.mask.sum())
                    found[role].append(flat[start + count - 1] if count else np.zeros(flat.shape[1], dtype=flat.dtype))
                    start += count
    scorer.train(was_training)
    return {role: np.stack(rows) for role, rows in found.items()}
