"""Adapter of learning from existing answers by advantage, its baselines, and the value of prompts."""

import torch
from torch import Tensor

from finegrain.objectives.alol import KL, ALoL, Ratio, RefFree, Seq
from finegrain.objectives.gold import GOLD
from finegrain.objectives.nll import NLL
from finegrain.objectives.pro import pro_imitation, pro_ranking
from finegrain.objectives.r_lol import RLoL
from finegrain.objectives.wbc import WBC
from finegrain.ops.prompt_value import PromptValue
from finegrain.types import Objective, Pair, Side, row_losses
from tests.golden.given import Adapters, Values, real


def alol(params: Values, inputs: Values) -> Values:
    logits, labels = real(inputs["policy_logits"]).requires_grad_(), torch.tensor(inputs["labels"])[..., None]
    taken = [given.log_softmax(-1).gather(-1, labels)[..., 0] for given in (logits, real(inputs["ref_logits"]))]
    side = Side(logp=taken[0], ref_logp=taken[1], mask=torch.tensor(inputs["mask"]) > 0)
    rewards = real(inputs["rewards"])
    pair = Pair(sides={"answer": side}, columns={"scored_reward": rewards, "advantage": rewards - real(inputs["value"])})
    clip = params["ppo_clip"]
    methods: dict[str, Objective] = {
        "wbc": WBC(),
        "r_gold": GOLD(floor=params["gold_floor"]),
        "r_lol": RLoL(clip=clip),
        "a_lol": ALoL(variant=Ratio(clip=clip)),
        "a_lol_ref_free": ALoL(variant=RefFree()),
        "a_lol_seq": ALoL(variant=Seq(clip=clip)),
        "a_lol_kl": ALoL(variant=KL(beta=params["kl_beta"])),
        "a_lol_unclipped": ALoL(variant=Ratio(clip=None)),
        "a_lol_seq_unclipped": ALoL(variant=Seq(clip=None)),
    }
    (sft,) = NLL()(pair).values()
    found: dict[str, Tensor] = {"nll": sft.value, **{name: row_losses(method(pair)) for name, method in methods.items()}}
    slope = lambda name: torch.autograd.grad(found[name].mean(), [logits], retain_graph=True)[0]
    return {
        **{f"{name}_per_response": own for name, own in found.items()},
        **{f"{name}_loss": own.mean() for name, own in found.items()},
        **_pro(params, inputs),
        "value_head": _value(params, inputs),
        "grads": {name: {"policy_logits": slope(name)} for name in ("r_gold", "a_lol", "a_lol_seq", "a_lol_kl")},
    }


def _pro(params: Values, inputs: Values) -> Values:
    """The place of the answer to imitate is the person's choice there, which need not have the highest reward."""
    sums = real(inputs["pro_sum_logp"])
    present = torch.ones_like(sums, dtype=torch.bool)
    ranking = pro_ranking(sums / real(inputs["pro_len"]), real(inputs["pro_rewards"]), present)
    best = -sums.gather(1, torch.tensor(inputs["pro_sft_index"])[:, None])[:, 0]
    imitation = pro_imitation(best, present.sum(1), weight=params["pro_sft_weight"])
    return {"pro_loss": (ranking + imitation).mean(), "pro_sft_term": imitation.mean()}


def _value(params: Values, inputs: Values) -> Tensor:
    hidden, stored = real(inputs["value_hidden"]), inputs["value_head_state"]
    head = PromptValue(hidden.shape[-1], heads=params["value_heads"], max_value=params["max_value"]).double()
    names = {"seq_query_weights": "query"}
    ours = lambda name: names.get(name, name.replace("source_seq_multihead_attn", "attention"))
    head.load_state_dict({ours(name): real(values) for name, values in stored.items()})
    return head(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))


ADAPTERS: Adapters = {"alol": alol}
