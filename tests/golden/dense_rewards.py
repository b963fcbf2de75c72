"""Adapters of dense reward models."""

from typing import Any

import torch
from torch import Tensor

from finegrain.online.gae import gae
from finegrain.online.kl_penalty import subtract_kl_penalty
from finegrain.ops.location import EndOnly, EvenSplit, LocationNormaliser, Repeat, Spread
from finegrain.ops.segments import place_in_row, segment_ends
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.segment import Segment, cut_segments
from finegrain.types import Pair, Side
from tests.golden.given import Adapters, Values, real

SPREADS: dict[str, Spread] = {"segment_normalization": EvenSplit(), "same_segment_last": Repeat(), "every_segment_last": EndOnly()}


def padded(rows: list[list[float]], width: int) -> tuple[Tensor, Tensor]:
    """Ragged rows and their mask."""
    values = real([row + [0.0] * (width - len(row)) for row in rows])
    return values, torch.tensor([[place < len(row) for place in range(width)] for row in rows])


def places(ends: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in ends]


def predicted(entropy_at_token: Tensor) -> Tensor:
    """Entropies that stand on the token after which they were read, on the token that they predict."""
    return entropy_at_token.roll(1, 1)


def segment_reward(params: Values, inputs: Values) -> Values:
    segmenter = EntropyCutoff(cutoff=params["entropy_threshold"])
    return rewards_of_policy(params, inputs, segmenter) if "lp" in inputs else reward_model(params, inputs, segmenter)


def rewards_of_policy(params: Values, inputs: Values, segmenter: EntropyCutoff) -> Values:
    mask = torch.tensor(inputs["response_mask"])
    ids = cut_segments(segmenter, predicted(real(inputs["entropy_at_token"])), mask)
    mean_slope, std_slope, mean_at_end, std_at_end = params["norm_params[mean_w,std_w,mean_b,std_b]"]
    normalise = LocationNormaliser(mean_slope=mean_slope, std_slope=std_slope, mean_at_end=mean_at_end, std_at_end=std_at_end)
    dense = SPREADS[params["mode"]](normalise(real(inputs["rm_value_at_token"]), place_in_row(ids)), ids)
    logp, ref_logp, values = (real(inputs[name]) for name in ("lp", "lp_ref", "values"))
    rewards = subtract_kl_penalty(dense, logp, ref_logp, mask, coefficient=params["kl_coef"], limit=10.0)
    found = gae(rewards, values, mask, gamma=params["gamma"], lam=params["lam"])
    return {
        "segment_ends": places(segment_ends(ids)),
        "segment_reward_per_token": dense,
        "reward_with_kl": rewards,
        "advantages": found.advantages,
        "returns": found.returns,
    }


def reward_model(params: Values, inputs: Values, segmenter: EntropyCutoff) -> Values:
    width = max(map(len, inputs["entropy_at_token"]))
    entropy, mask = padded(inputs["entropy_at_token"], width)
    outputs = padded(inputs["rm_value_at_token"], width)[0].requires_grad_()
    ids, half = cut_segments(segmenter, predicted(entropy), mask), len(mask) // 2

    def side(rows: slice) -> Side:
        return Side(logp=torch.zeros(mask[rows].shape), mask=mask[rows], segment=ids[rows], outputs=outputs[rows][..., None])

    margin = params.get("margin")
    columns = {} if margin is None else {"margin": torch.broadcast_to(real(margin), (half,))}
    pair = Pair(sides={"chosen": side(slice(0, half)), "rejected": side(slice(half, None))}, columns=columns)
    loss = BradleyTerry()(Segment(), pair).mean()
    (gradient,) = torch.autograd.grad(loss, outputs)
    scores: dict[str, Any] = {f"{role}_reward": sequence_score(Segment(), one).mean for role, one in pair.sides.items()}
    grads = [row[kept].tolist() for row, kept in zip(gradient, mask, strict=True)]
    return {"segment_ends": places(segment_ends(ids)), **scores, "loss": loss, "grads": {"rm_value_at_token": grads}}


ADAPTERS: Adapters = {"segment-reward": segment_reward}
