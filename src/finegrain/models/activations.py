"""Activations of a frozen language model at the positions that predict an answer's tokens, answer by answer.

Source: the four kinds of tensors that SparsePO's authors average for MaPO, https://arxiv.org/abs/2410.05102.
Deviations: they are found by what transformers calls modules: activation functions, projections of attention, embedding and blocks,
logits. Rotated queries and keys, the final norm and the inner points of the residual stream are left out, as is what sees some tokens only, such
as experts [choice].
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.models.block_states import blocks_of
from finegrain.models.score import Precision, PromptWithAnswers
from finegrain.models.scorer import Scorer, causal_lm, stock_attention
from finegrain.ops.activation_share import activation_share
from finegrain.types import Ragged

MLP = re.compile(r"(?:^|\.)(?:act_fn|act|activation_fn|activation|gelu_impl)$")
"""Names of activation functions below a block."""
ATTENTION = re.compile(r"(?:attn|attention)\w*\..*(?:[qkvo]_proj|out_proj|c_attn|c_proj|query_key_value|qkv_proj|dense|Wqkv|query|key|value)$")
"""Names of projections of attention."""


def measure_activations(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, `ops.activation_share` of each token, one (T,) array per example; a plain pass per answer, which is slow."""
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
