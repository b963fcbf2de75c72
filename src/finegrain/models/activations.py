"""How strongly a frozen language model's units respond where each token of an answer is predicted, in [0, 1]: MaPO's token mask.

Source: the four kinds of tensors that SparsePO's authors average for MaPO, https://arxiv.org/abs/2410.05102.
Deviations: computed exactly; the authors' mean, deviation and extremes are in float16. Their normalisation to mean 0 and deviation 1 comes
before a shift and a scale to [0, 1], so it changes nothing and is left out. A constant answer gets 1, where theirs divides by 0. Tensors are
found by what transformers calls modules: activation functions, projections of attention, embedding and blocks, logits. Rotated queries and keys,
the final norm and the inner points of the residual stream are left out, as is what sees some tokens only, such as experts [choice].
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from finegrain.models.block_states import blocks_of
from finegrain.models.score import Precision, PromptWithAnswers
from finegrain.models.scorer import Scorer, causal_lm, stock_attention
from finegrain.types import Ragged

MLP = re.compile(r"(?:^|\.)(?:act_fn|act|activation_fn|activation|gelu_impl)$")
"""Names of activation functions below a block."""
ATTENTION = re.compile(r"(?:attn|attention)\w*\..*(?:[qkvo]_proj|out_proj|c_attn|c_proj|query_key_value|qkv_proj|dense|Wqkv|query|key|value)$")
"""Names of projections of attention."""


def activation_share(means: Mapping[str, Sequence[Float[Tensor, " T"]]], mask: Bool[Tensor, " T"]) -> Float[Tensor, " T"]:
    """By kind of unit, for every tensor the mean over its features at each token -> mean over kinds of the mean over their tensors; 0 off the mask.

    Each tensor's means are shifted and scaled to [0, 1] over the tokens of the mask.
    """
    kinds = [torch.stack([_to_unit(values, mask) for values in own]).mean(0) for own in means.values()]
    return torch.where(mask, torch.stack(kinds).mean(0), 0.0)


def _to_unit(values: Float[Tensor, " T"], mask: Bool[Tensor, " T"]) -> Float[Tensor, " T"]:
    low, high = values[mask].aminmax()
    return torch.where(high > low, (values - low) / torch.where(high > low, high - low, 1.0), 1.0)


def measure_activations(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, `activation_share` of each token, one (T,) array per example; a plain pass per answer, which is slow."""
    found: dict[str, Ragged] = {role: [] for role in roles}
    was_training = scorer.training
    scorer.eval()
    with torch.no_grad(), precision.autocast(), stock_attention(scorer.model):
        for example in examples:
            for role in roles:
                response = example.responses[role]
                mask = torch.from_numpy(np.array(response.mask))
                ids = torch.from_numpy(np.concatenate([example.prompt, response.ids]).astype(np.int64))
                means = _means(scorer, ids, len(example.prompt))
                share = activation_share(means, mask) if bool(mask.any()) else torch.zeros(len(mask))
                found[role].append(share.numpy().astype(np.float32))
    scorer.train(was_training)
    return found


def _means(scorer: Scorer, ids: Tensor, prompt: int) -> Mapping[str, Sequence[Float[Tensor, " T"]]]:
    """By kind, the mean over features of every tensor at the positions that predict the answer."""
    lm = causal_lm(scorer.model)
    with _listening(lm) as heard:
        logits = lm(input_ids=ids[None].to(scorer.device), use_cache=False).logits
    heard["logits"] = [_mean(logits)]
    whole = {kind: [values[prompt - 1 : -1] for values in own if len(values) == len(ids)] for kind, own in heard.items()}
    return {kind: own for kind, own in whole.items() if own}  # experts see some tokens only


@contextmanager
def _listening(lm: Any) -> Iterator[dict[str, list[Tensor]]]:
    """By kind, the means of what modules give while the context lasts."""
    heard: dict[str, list[Tensor]] = {kind: [] for kind in ("mlp", "attention", "residual")}

    def hear(module: nn.Module, kind: str) -> Any:
        return module.register_forward_hook(lambda _, given, output: heard[kind].append(_mean(output if isinstance(output, Tensor) else output[0])))

    blocks = blocks_of(lm.base_model, int(lm.config.get_text_config().num_hidden_layers))
    hooks = [hear(module, "residual") for module in (lm.get_input_embeddings(), *blocks)]
    for block in blocks:
        for name, module in block.named_modules():
            if MLP.search(name):
                hooks.append(hear(module, "mlp"))
            elif ATTENTION.search(name):
                hooks.append(hear(module, "attention"))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _mean(states: Tensor) -> Float[Tensor, " N"]:
    """(1, N, F) or (N, F) -> (N,), on the CPU."""
    return states.float().mean(-1).flatten().cpu()
