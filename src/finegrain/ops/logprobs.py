"""Log-probability, entropy and full-vocabulary KL of given tokens from hidden states, without ever holding all logits.

The head runs over chunks of positions, forward and backward; the backward recomputes each chunk and applies the exact
derivative, so any per-token weighting upstream is exact. Matmuls follow the autocast dtype, everything after is float32
or wider. With z the logits, p = softmax(z), H the entropy, K = KL(p || q), R = KL(q || p) and upstream gradients g:

    dz = g_lp (onehot - p)  -  g_H p (log p + H)  +  g_K p (log p - log q - K)  +  g_R (p - q)
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from finegrain.ops.matmul import add_product, multiply
from finegrain.types import chunks

CHUNK_BYTES = 16 * 2**20
"""Size of one chunk of logits on a CPU: small enough for the cache, large enough for efficient products."""

ACCELERATOR_CHUNK_BYTES = 256 * 2**20
"""The same on other devices, where a chunk costs a dozen kernel launches and there is no such cache [choice]."""

ROW_MULTIPLE = 32
"""Positions are padded to a multiple of this before they are cut into chunks."""

LEAST_ROWS = 128
"""Minimum number of positions of a chunk, whatever the vocabulary: the weight's gradient is read and written once per chunk."""


class OutputLayer(NamedTuple):
    """An output layer: logits = cap * tanh((hidden * scale) W' + b) / cap), the cap where the model has one."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None = None
    softcap: float | None = None
    scale: float = 1.0

    def at_temperature(self, temperature: float) -> "OutputLayer":
        """The layer whose logits are divided by the temperature; the cap and the bias with them."""
        if temperature == 1.0:
            return self
        bias = None if self.bias is None else self.bias / temperature
        cap = None if self.softcap is None else self.softcap / temperature
        return OutputLayer(self.weight, bias, cap, self.scale / temperature)


class TokenValues(NamedTuple):
    """Scalars of M tokens, nats, a head's K outputs and the H features that it reads; None where not requested."""

    logp: Float[Tensor, " M"]
    entropy: Float[Tensor, " M"] | None = None
    kl: Float[Tensor, " M"] | None = None
    reference_kl: Float[Tensor, " M"] | None = None
    outputs: Float[Tensor, "M K"] | None = None
    q: Float[Tensor, " M"] | None = None
    q_logp: Float[Tensor, " M"] | None = None
    features: Float[Tensor, "M H"] | None = None
    reading: Float[Tensor, "M K"] | None = None
    values: Float[Tensor, "M K"] | None = None
    output_gradients: Float[Tensor, "n V H"] | None = None
    """Of n losses at the output layer, summed over the tokens."""


def token_values(
    hidden: Float[Tensor, "M H"],
    head: OutputLayer,
    targets: Int[Tensor, " M"],
    *,
    entropy: bool = False,
    reference: tuple[Float[Tensor, "M R"], OutputLayer] | None = None,
    kl: bool = True,
    reference_kl: bool = False,
) -> TokenValues:
    """log p(target), and on request the entropy, KL(p || p_reference) and KL(p_reference || p), at each position.

    Differentiable in `hidden` and the head's weight and bias; the reference is a constant. `kl` and `reference_kl` say which of the two
    directions is wanted where there is a reference.
    """
    if head.scale != 1.0:
        hidden = hidden * head.scale
    count = len(targets)
    filling = -count % ROW_MULTIPLE  # rows of zeros whose values are discarded: few shapes of products, cf. models.packing
    hidden, targets = pad(hidden, (0, 0, 0, filling)), pad(targets, (0, filling))
    if reference is not None:
        reference = pad(reference[0], (0, 0, 0, filling)), reference[1]
    asked = (entropy, kl and reference is not None, reference_kl and reference is not None)
    outputs = _ChunkedHead.apply(hidden, head.weight, head.bias, targets, head.softcap, asked, reference)  # type: ignore[no-untyped-call]
    logp, *further = outputs
    return TokenValues(logp[:count], *(values[:count] if wanted else None for values, wanted in zip(further, asked, strict=True)))


def compute_logits(hidden: Float[Tensor, "M H"], head: OutputLayer) -> Float[Tensor, "M V"]:
    """All logits of some positions, float32 or wider, without gradient."""
    dtype = _compute_dtype(hidden, head.weight)
    scaled = hidden * head.scale if head.scale != 1.0 else hidden
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        return _logits(scaled.to(dtype), head.weight.to(dtype), head.bias, head.softcap)


def chunk_rows(weight: Tensor) -> int:
    """Positions of one chunk of logits."""
    size = CHUNK_BYTES if weight.device.type == "cpu" else ACCELERATOR_CHUNK_BYTES
    return max(LEAST_ROWS, size // (4 * weight.shape[0]))


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.promote_types(hidden.dtype, weight.dtype)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Logits of one chunk, float32 or wider."""
    logits = multiply(hidden, weight)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if bias is not None:
        logits += bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        asked: tuple[bool, bool, bool],
        reference: Any,
    ) -> Any:
        dtype = _compute_dtype(hidden, weight)
        ctx.compute_dtype, ctx.softcap, ctx.asked, ctx.reference = dtype, softcap, asked, reference
        entropy, kl, reference_kl = asked
        count = len(targets)
        ctx.rows = chunk_rows(weight)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        logp, lse = (torch.empty(count, dtype=wide, device=hidden.device) for _ in range(2))
        entropies, kls, reference_kls = (torch.zeros(count if wanted else 0, dtype=wide, device=hidden.device) for wanted in asked)
        with torch.autocast(hidden.device.type, enabled=False):
            cast_weight = weight.to(dtype)
            for part in chunks(count, ctx.rows):
                logits = _logits(hidden[part].to(dtype), cast_weight, bias, softcap)
                at_target = logits.gather(-1, targets[part, None])[:, 0]
                if not any(asked):
                    top = logits.amax(-1)
                    lse[part] = logits.sub_(top[:, None]).exp_().sum(-1).log_() + top
                else:
                    lse[part] = torch.logsumexp(logits, -1)
                    log_p = logits.sub_(lse[part, None])
                    p = log_p.exp()
                    if entropy:
                        entropies[part] = -(p * log_p).sum(-1)
                    if kl or reference_kl:
                        log_q = _reference_log_p(reference, part, dtype)
                        if reference_kl:
                            reference_kls[part] = (log_q.exp() * (log_q - log_p)).sum(-1)
                        if kl:
                            kls[part] = (p * (log_p - log_q)).sum(-1)
                logp[part] = at_target - lse[part]
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropies, kls)
        return logp, entropies, kls, reference_kls

    @staticmethod
    def backward(ctx: Any, grad_logp: Tensor, grad_entropy: Tensor, grad_kl: Tensor, grad_reference_kl: Tensor) -> Any:
        hidden, weight, bias, targets, lse = ctx.saved_tensors[:5]
        dtype = ctx.compute_dtype
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and need_bias else None
        cast_weight = weight.to(dtype)
        only_logp = not any(ctx.asked) and ctx.softcap is None
        for part in chunks(len(targets), ctx.rows):
            states = hidden[part].to(dtype)
            logits = _logits(states, cast_weight, bias, ctx.softcap)
            if only_logp:  # dz = g (onehot - p) without a pass for g, which scales rows of the small factors instead
                scale = -grad_logp[part, None]
                share = logits.sub_(lse[part, None]).exp_()
            else:
                scale = None
                share = _logit_gradient(ctx, logits, part, grad_logp, grad_entropy, grad_kl, grad_reference_kl)
            if grad_bias is not None:
                grad_bias += share.sum(0) if scale is None else (share * scale).sum(0)
            share = share.to(dtype)
            if grad_hidden is not None:
                towards = multiply(share, cast_weight.T)
                grad_hidden[part] = towards if scale is None else towards * scale
            if grad_weight is not None:
                add_product(grad_weight, share.T, (states if scale is None else states * scale.to(dtype)).T)
        if only_logp:
            if grad_hidden is not None:
                grad_hidden += grad_logp[:, None] * weight[targets]
            if grad_weight is not None:
                grad_weight.index_add_(0, targets, (grad_logp[:, None] * hidden).to(grad_weight.dtype))
            if grad_bias is not None:
                grad_bias.index_add_(0, targets, grad_logp.to(grad_bias.dtype))
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _logit_gradient(
    ctx: Any, logits: Tensor, part: slice, grad_logp: Tensor, grad_entropy: Tensor, grad_kl: Tensor, grad_reference_kl: Tensor
) -> Tensor:
    """dz of one chunk before the soft-cap, from its logits after it."""
    targets, lse, entropies, kls = ctx.saved_tensors[3:]
    entropy, kl, reference_kl = ctx.asked
    slope = 1 - (logits / ctx.softcap) ** 2 if ctx.softcap is not None else None
    log_p = logits.sub_(lse[part, None])
    p = log_p.exp()
    grad = -grad_logp[part, None] * p
    if entropy:
        grad -= grad_entropy[part, None] * p * (log_p + entropies[part, None])
    if kl or reference_kl:
        log_q = _reference_log_p(ctx.reference, part, ctx.compute_dtype)
        if kl:
            grad += grad_kl[part, None] * p * (log_p - log_q - kls[part, None])
        if reference_kl:
            grad += grad_reference_kl[part, None] * (p - log_q.exp())
    grad.scatter_add_(-1, targets[part, None], grad_logp[part, None].to(grad.dtype))
    return grad if slope is None else grad * slope


def _reference_log_p(reference: tuple[Tensor, OutputLayer], part: slice, dtype: torch.dtype) -> Tensor:
    hidden, head = reference
    with torch.no_grad():
        scaled = hidden[part] * head.scale if head.scale != 1.0 else hidden[part]
        return torch.log_softmax(_logits(scaled.to(dtype), head.weight.to(dtype), head.bias, head.softcap), -1)


SWITCH = -math.log(2)


def log1mexp(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(1 - e^a) of a < 0, in nats; exact on both sides of -ln 2.

    Source: Maechler 2012, https://cran.r-project.org/web/packages/Rmpfr/vignettes/log1mexp-note.pdf, eq. 7.
    """
    near_one = logp > SWITCH
    switch = torch.full_like(logp, SWITCH)
    near = torch.log(-torch.expm1(torch.where(near_one, logp, switch)))
    far = torch.log1p(-torch.exp(torch.where(near_one, switch, logp)))
    return torch.where(near_one, near, far)


def log_odds(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(p / (1 - p)) of a log-probability, nats; a probability that rounds to 1 counts as 1 - eps of the dtype."""
    capped = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return capped - log1mexp(capped)
