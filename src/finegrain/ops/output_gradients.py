"""Gradients of several losses at the output layer, from the slopes of the losses by the tokens' log-probabilities: no backward pass.

    dL_i/dW = sum_t s_ti (onehot(y_t) - p_t) h_t',   s_ti = dL_i / d log p_t(y_t)

Source: the derivative of the softmax.
Deviations: of a layer whose weight is also the input embedding, the part through the output alone; a soft-cap is differentiated, a bias left out.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from finegrain.ops.logprobs import OutputLayer, chunk_rows, compute_logits
from finegrain.types import chunks


def output_gradients(
    hidden: Float[Tensor, "M H"], head: OutputLayer, targets: Int[Tensor, " M"], slopes: Float[Tensor, "M n"]
) -> Float[Tensor, "n V H"]:
    """The gradient of each loss at the layer's weight, summed over the positions, float32 or wider; logits of one chunk at a time."""
    wide = torch.float64 if slopes.dtype == torch.float64 else torch.float32
    found = torch.zeros(slopes.shape[1], *head.weight.shape, dtype=wide, device=hidden.device)
    with torch.no_grad():
        for part in chunks(len(targets), chunk_rows(head.weight)):
            logits = compute_logits(hidden[part], head).to(wide)
            towards = one_hot(targets[part].long(), logits.shape[1]).to(wide) - logits.softmax(-1)
            if head.softcap is not None:
                towards = towards * (1 - (logits / head.softcap).square())
            with torch.autocast(hidden.device.type, enabled=False):
                states = hidden[part].to(wide) * head.scale
                for place, own in enumerate(slopes[part].to(wide).unbind(1)):
                    found[place].addmm_(towards.T, states * own[:, None])
    return found


def inner_products(gradients: Float[Tensor, "n V H"]) -> Float[Tensor, "n n"]:
    """Of each gradient with each, float64, on the CPU."""
    flat = gradients.flatten(1)
    return (flat @ flat.T).double().cpu()
