"""Adapters of objectives that read the whole next-token distributions of policy and reference."""

import torch
from torch import Tensor, nn

from finegrain.models.activations import activation_share
from finegrain.objectives.mapo import MaPO
from finegrain.objectives.mask_network import SimpleAll
from finegrain.objectives.sparsepo import Common, Independent, SparsePO, activate, masked_margin
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.objectives.tdpo2 import TDPO2
from finegrain.objectives.token_kl import masked_score, regret_score
from finegrain.ops.logprobs import OutputLayer, token_values
from finegrain.ops.sequence import average_log_ratio, log_ratio, sequence_kl, sequence_logp
from finegrain.types import Pair, Side, row_losses
from tests.golden.given import Adapters, Values, real


def side_of(policy: Tensor, reference: Tensor, targets: Tensor, mask: Tensor) -> Side:
    """Answers as the engine scores them, from logits (B, T, V) aligned with their targets: an output layer that is the identity."""
    same = OutputLayer(torch.eye(policy.shape[-1], dtype=policy.dtype))
    flat = [logits.flatten(0, 1) for logits in (policy, reference)]
    found = token_values(flat[0], same, targets.flatten(), reference=(flat[1], same), kl=False, reference_kl=True)
    frozen = token_values(flat[1], same, targets.flatten())
    assert found.reference_kl is not None
    logp, kl, ref_logp = (values.unflatten(0, targets.shape) for values in (found.logp, found.reference_kl, frozen.logp))
    return Side(logp=logp, ref_logp=ref_logp.detach(), reference_kl=kl, mask=mask)


def pair_of(side: Side, count: int) -> Pair:
    """The first `count` rows as chosen, the rest as rejected answers."""
    return Pair(sides={"chosen": _rows(side, slice(count)), "rejected": _rows(side, slice(count, None))})


def _rows(side: Side, rows: slice) -> Side:
    fields = ("logp", "ref_logp", "reference_kl", "mask", "weight", "reading")
    return Side(**{name: None if (values := getattr(side, name)) is None else values[rows] for name in fields})


def tdpo(params: Values, inputs: Values) -> Values:
    policy, reference = (real(inputs[f"{name}_logits"])[:, :-1].requires_grad_() for name in ("policy", "ref"))
    labels = torch.tensor(inputs["labels"])[:, 1:]
    side = side_of(policy, reference, labels.clamp(min=0), labels != -100)
    pair, count, beta = pair_of(side, params["n_pairs"]), params["n_pairs"], params["beta"]
    rewards = beta * regret_score(side)
    per_token = Side(logp=side.reference_kl, ref_logp=torch.zeros_like(side.logp), mask=side.mask)
    outputs: Values = {
        "logps_margin": log_ratio(side),
        "seq_forward_kl": sequence_kl(side),
        "policy_logps": sequence_logp(side),
        "logps_margin_avg": average_log_ratio(side),
        "seq_forward_kl_avg": average_log_ratio(per_token),
    }
    grads: Values = {}
    for name, objective in {"tdpo1": TDPO1(beta=beta), "tdpo2": TDPO2(beta=beta, alpha=params["alpha"])}.items():
        losses = objective(pair)
        outputs |= {f"{name}_loss": losses, f"{name}_chosen_reward": rewards[:count], f"{name}_rejected_reward": rewards[count:]}
        (slope,) = torch.autograd.grad(losses.mean(), policy, retain_graph=True)
        grads[name] = {"policy_logits": nn.functional.pad(slope, (0, 0, 0, 1))}
    assert reference.grad is None
    return {**outputs, "grads": grads}


def _network(reader: nn.Module, place: int, given: Values) -> None:
    """A network of the file in the reader's place."""
    own = {"norm.weight": given["ln_weight"], "norm.bias": given["ln_bias"], "mixer.weight": [given["mixer_w"]]}
    for layer, (weight, bias) in enumerate(zip(given["layer_w"], given["layer_b"], strict=True)):
        own |= {f"outer.{layer}.weight": [weight], f"outer.{layer}.bias": [bias]}
    reader.networks[place].load_state_dict({name: real(values) for name, values in own.items()})  # type: ignore[index]


def sparsepo(params: Values, inputs: Values) -> Values:
    beta, count = params["beta"], params["n_pairs"]
    objective = SparsePO(
        beta=beta,
        l1_reward=params["l1_u"],
        l1_kl=params["l1_d"],
        masks=Independent() if params["independent"] else Common(),
        network=SimpleAll(dropout=0.0),
    )
    states, mask, targets = real(inputs["ref_hidden_states"]), torch.tensor(inputs["mask"]) > 0, torch.tensor(inputs["target_ids"])
    assert objective.make_reader is not None
    reader = objective.make_reader(len(states), states.shape[-1], torch.Generator()).double()
    for place, name in enumerate(("mask_net_u", "mask_net_d")[: objective.masks.count]):
        _network(reader, place, inputs[name])
    assert all(network.norm.eps == params["ln_eps"] for network in reader.networks)  # type: ignore[union-attr]
    reading = reader([reader.read_block(number, own.flatten(0, 1)) for number, own in enumerate(states)]).unflatten(0, mask.shape)  # type: ignore[operator]
    policy, reference = real(inputs["policy_logits"]).requires_grad_(), real(inputs["ref_logits"])
    plain = side_of(policy, reference, targets, mask)
    side = Side(logp=plain.logp, ref_logp=plain.ref_logp, reference_kl=plain.reference_kl, mask=mask, reading=reading)
    u, d = objective.masks(activate(reading, torch.ones_like(mask), objective.activation))  # the file has masks of other tokens too
    pair, ones, zeros = pair_of(side, count), torch.ones_like(u), torch.zeros_like(u)
    halves = lambda values: (values[:count], values[count:])
    margin = lambda reward, kl: masked_margin(pair, list(zip(halves(reward), halves(kl), strict=True)))
    losses = row_losses(objective(pair))
    names = {"policy_logits": policy, "mixer_w": reader.networks[0].mixer.weight, "layer0_w": reader.networks[0].outer[0].weight}  # type: ignore[union-attr,index]
    slopes = dict(zip(names, torch.autograd.grad(losses.mean(), list(names.values())), strict=True))
    logged = beta * masked_score(side, u, -d)  # the authors log the KL with the other sign
    unmasked = SparsePO(beta=beta, masks=Independent())
    with_masks = lambda reward, kl: row_losses(unmasked(pair_of(Side(**{**vars(plain), "reading": torch.stack([reward, kl], -1)}), count)))
    shares = [activation_share({"one": [own.mean(-1)]}, kept) for own, kept in zip(real(inputs["activation"]), mask, strict=True)]
    fixed = Side(**{**vars(plain), "weight": torch.stack(shares)})
    mapo_logged = beta * masked_score(plain, torch.stack(shares), -torch.stack(shares))
    return {
        "mask_u": u,
        "mask_d": d,
        "u": margin(u, zeros),
        "d": -margin(zeros, d),
        "sparse_loss": losses,
        "logged_chosen_reward": logged[:count],
        "logged_rejected_reward": logged[count:],
        "all_ones_mask_loss": with_masks(ones, ones),
        "ones_reward_zero_kl_loss": with_masks(ones, zeros),
        "mapo_mask_exact_minmax": torch.stack(shares),
        "mapo_loss_on_exact_mask": MaPO(beta=beta)(pair_of(fixed, count)),
        "mapo_logged_chosen_reward": mapo_logged[:count],
        "mapo_logged_rejected_reward": mapo_logged[count:],
        "grads": {"sparse_loss": {**slopes, "mixer_w": slopes["mixer_w"][0], "layer0_w": slopes["layer0_w"][0]}},
    }


ADAPTERS: Adapters = {"sparsepo": sparsepo, "tdpo": tdpo}
