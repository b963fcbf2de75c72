"""The scorer: a causal language model that turns prompts and answers into one number per answer token.

`fused` packs prompts with their answers and runs a chunked head over the scored positions only; `plain` runs one padded
row per answer with a dense head and the model's own attention: slower, larger, and the reference for the first.
The scorer is the one module that is wrapped and trained; the head's weight is read inside its forward only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.models import attention
from finegrain.models.block_states import read_blocks
from finegrain.models.packing import Group, Packed, pack
from finegrain.ops.action_values import Wanted, Weighed, action_values
from finegrain.ops.block_reader import BlockReader
from finegrain.ops.logprobs import OutputLayer, TokenValues, token_values
from finegrain.ops.output_gradients import output_gradients


@dataclass(frozen=True)
class Request:
    """What to compute for answer tokens: their log-probabilities, and further values on request."""

    logp: bool = True
    """False leaves out the vocabulary head: log-probabilities are 0."""
    prompts: bool = False
    """Log-probabilities of prompt tokens too, after those of the answers."""
    entropy: bool = False
    kl_against: "Scorer | None" = None
    """A frozen scorer; the full-vocabulary KL between the policy and it at each position."""
    kl: bool = True
    """Whether that is KL(policy || it)."""
    reference_kl: bool = False
    """Whether it is, or is also, KL(it || policy)."""
    action_value: Wanted | None = None
    """How Q-values of taken tokens are computed from logits."""
    q_head: nn.Linear | None = None
    """The head of those logits where it is not the model's own vocabulary head."""
    outputs: nn.Module | None = None
    """A head (H,) -> (K,) whose outputs at the hidden states of the scored tokens are returned; float32 or wider."""
    features: bool = False
    """The hidden states that have read the scored tokens, as a head would receive them."""
    reader: BlockReader | None = None
    """Reads the frozen scorer's hidden states of all blocks at the positions that predict the scored tokens."""
    values: nn.Module | None = None
    """A head (H,) -> (K,) read at the positions that predict the scored tokens, so that its numbers do not depend on them."""
    temperature: float = 1.0
    """Logits are divided by it, those of `kl_against` too."""
    slopes: Callable[[Tensor], Tensor] | None = None
    """(log-probabilities (M,)) -> (M, n) slopes of n losses by them; the gradients of these losses at the output layer come back."""


Path = Callable[[Any, Sequence[Group], Request], TokenValues]


class Scorer(nn.Module):
    """`scorer(groups, request)` returns flat token values: answers in packed order, then prompts on request."""

    def __init__(self, model: Any, path: Path, head: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.head = head
        self.q_head: nn.Linear | None = None
        self.value_head: nn.Module | None = None

    def forward(self, groups: Sequence[Group], request: Request = Request()) -> TokenValues:
        """Values of the M scored tokens, nats, float32 or wider."""
        return self.path(self.model, groups, request)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(self.model.parameters()).device
        return device


def fused(model: Any, groups: Sequence[Group], request: Request) -> TokenValues:
    """Prefix sharing, no padding, and logits of only one chunk of scored positions at a time."""
    packed = pack(groups, score_prompts=request.prompts, device=next(model.parameters()).device)
    states = _states(model, packed)
    outputs = None if request.outputs is None else head_outputs(request.outputs, states.index_select(0, packed.reads))
    features = states.index_select(0, packed.reads) if request.features else None
    estimates = None if request.values is None else head_outputs(request.values, states.index_select(0, packed.predicts))
    if not request.logp:
        return TokenValues(states.new_zeros(len(packed.reads)), outputs=outputs, features=features, values=estimates)
    hidden = states.index_select(0, packed.predicts)
    reference = reading = None
    if request.kl_against is not None:
        frozen = request.kl_against.model
        if request.reader is None:
            with torch.no_grad():
                frozen_states = _states(frozen, packed)
        else:
            select = lambda states: states[0].index_select(0, packed.predicts)
            last, reading = read_blocks(*_blocks(frozen), select, request.reader, lambda: _states(frozen, packed)[None])
            frozen_states = last[0]
        if request.kl or request.reference_kl:
            reference = (frozen_states.index_select(0, packed.predicts), output_head(frozen).at_temperature(request.temperature))
    layer = output_head(model).at_temperature(request.temperature)
    values = token_values(
        hidden, layer, packed.targets, entropy=request.entropy, reference=reference, kl=request.kl, reference_kl=request.reference_kl
    )
    steep = None if request.slopes is None else output_gradients(hidden, layer, packed.targets, request.slopes(values.logp))
    values = values._replace(outputs=outputs, features=features, reading=reading, values=estimates, output_gradients=steep)
    return _with_action_values(values, model, groups, hidden, packed.targets, request)


def _blocks(model: Any) -> tuple[Any, int]:
    """The model that has blocks, and their number."""
    lm = causal_lm(model)
    return lm.base_model, int(lm.config.get_text_config().num_hidden_layers)


def _with_action_values(values: TokenValues, model: Any, groups: Sequence[Group], hidden: Tensor, targets: Tensor, request: Request) -> TokenValues:
    if request.action_value is None:
        return values
    head = output_head(model) if request.q_head is None else OutputLayer(request.q_head.weight)
    weight = _weights(request.action_value, groups, values.outputs) if isinstance(request.action_value, Weighed) else None
    found = action_values(hidden, head, targets, request.action_value, weight)
    return values._replace(q=found.q, q_logp=found.logp)


def _weights(wanted: Weighed, groups: Sequence[Group], outputs: Tensor | None) -> Tensor:
    """(M,) weights of the scored tokens, each answer's from its own outputs; 1 for prompt tokens, which come last."""
    assert outputs is not None, "weights of Q-values need the reward head's outputs"
    counts = [int(branch.mask.sum()) for group in groups for branch in group.branches]
    with torch.autocast(outputs.device.type, enabled=False):
        answers = torch.tensor_split(outputs[: sum(counts)], np.cumsum(counts)[:-1].tolist())
        parts = [wanted.weight.weights(one[None], torch.ones_like(one[None, :, 0], dtype=torch.bool))[0] for one in answers]
    return torch.cat([*parts, torch.ones_like(outputs[sum(counts) :, 0])])


def head_outputs(head: nn.Module, hidden: Tensor) -> Tensor:
    """(M, K) outputs of a head, outside autocast: a score is a small difference of large numbers."""
    with torch.autocast(hidden.device.type, enabled=False):
        weight = next(head.parameters())
        outputs: Tensor = head(hidden.to(weight.dtype))
    return outputs


def _states(model: Any, packed: Packed) -> Tensor:
    """Last hidden states of all positions, (N, H)."""
    states: Tensor = (
        causal_lm(model)
        .base_model(input_ids=packed.input_ids, position_ids=packed.position_ids, branches=packed.branches, use_cache=False)
        .last_hidden_state
    )
    return states[0]


def plain(model: Any, groups: Sequence[Group], request: Request) -> TokenValues:
    """One right-padded row per answer, dense logits, stock attention.

    No padding mask: causal attention never looks right, and a mask gives rows without any key (NaN) in windowed layers.
    """
    device = next(model.parameters()).device
    rows = [torch.from_numpy(row).to(device) for row in plain_rows(groups)]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).long()
    row, column = _plain_index(groups, request, device)
    outputs = features = estimates = None
    if request.action_value is not None or request.features or any(one is not None for one in (request.outputs, request.values, request.slopes)):
        with stock_attention(model):
            states = causal_lm(model).base_model(input_ids=ids, use_cache=False).last_hidden_state
        outputs = None if request.outputs is None else head_outputs(request.outputs, states[row, column + 1])
        features = states[row, column + 1] if request.features else None
        estimates = None if request.values is None else head_outputs(request.values, states[row, column])
    if not request.logp:
        return TokenValues(torch.zeros(len(row), device=device), outputs=outputs, features=features, values=estimates)
    with stock_attention(model):
        logits = model(input_ids=ids, use_cache=False).logits
        frozen_logits = reading = None
        if request.kl_against is not None:
            with torch.no_grad(), stock_attention(request.kl_against.model):
                found = request.kl_against.model(input_ids=ids, use_cache=False, output_hidden_states=request.reader is not None)
            frozen_logits = found.logits
            if request.reader is not None:
                weight = next(request.reader.parameters())
                blocks = [states[row, column].to(weight.dtype) for states in found.hidden_states[1:]]
                reading = request.reader([request.reader.read_block(number, states) for number, states in enumerate(blocks)])
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_p = torch.log_softmax(logits[:, :-1].to(wide) / request.temperature, -1)
    at = log_p[row, column]
    logp = at.gather(-1, ids[row, column + 1][:, None])[:, 0]
    entropy = -(at.exp() * at).sum(-1) if request.entropy else None
    kl = reference_kl = None
    if frozen_logits is not None:
        log_q = torch.log_softmax(frozen_logits[:, :-1].to(wide) / request.temperature, -1)[row, column]
        kl = (at.exp() * (at - log_q)).sum(-1) if request.kl else None
        reference_kl = (log_q.exp() * (log_q - at)).sum(-1) if request.reference_kl else None
    steep = None
    if request.slopes is not None:
        layer = output_head(model).at_temperature(request.temperature)
        steep = output_gradients(states[row, column], layer, ids[row, column + 1], request.slopes(logp))
    values = TokenValues(logp, entropy, kl, reference_kl, outputs, features=features, reading=reading, values=estimates, output_gradients=steep)
    return values if request.action_value is None else _with_action_values(values, model, groups, states[row, column], ids[row, column + 1], request)


def plain_rows(groups: Sequence[Group]) -> list[np.ndarray]:
    """Prompt + answer of every branch, as stock code receives it."""
    return [np.concatenate([group.prompt, branch.ids]) for group in groups for branch in group.branches]


def _plain_index(groups: Sequence[Group], request: Request, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of the positions that predict the scored tokens, in the order of `pack`."""
    rows, columns, row = [], [], 0
    prompt_rows, prompt_columns = [], []
    for group in groups:
        start = len(group.prompt) - 1
        prompt_rows.append(np.full(start, row))
        prompt_columns.append(np.arange(start))
        for branch in group.branches:
            scored = np.nonzero(branch.mask)[0]
            rows.append(np.full(len(scored), row))
            columns.append(start + scored)
            row += 1
    if request.prompts:
        rows, columns = rows + prompt_rows, columns + prompt_columns
    return torch.from_numpy(np.concatenate(rows)).to(device), torch.from_numpy(np.concatenate(columns)).to(device)


def causal_lm(model: Any) -> Any:
    """The transformers model below an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def output_head(model: Any) -> OutputLayer:
    """The model's current output layer, including adapters."""
    lm = causal_lm(model)
    layer = lm.get_output_embeddings()
    if hasattr(layer, "modules_to_save"):
        layer = layer.modules_to_save[layer.active_adapters[0]] if not layer.disable_adapters else layer.original_module
    if hasattr(layer, "get_delta_weight"):
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        if not layer.disable_adapters and not layer.merged:
            weight = weight + sum(layer.get_delta_weight(name) for name in layer.active_adapters)
    else:
        weight, bias = layer.weight, getattr(layer, "bias", None)
    config = lm.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return OutputLayer(weight, bias, getattr(config, "final_logit_softcapping", None), float(scale))


def release_unread_vocabulary(model: Any, *, keep: bool = False) -> None:
    """For objectives that read no log-probabilities: takes a vocabulary head of its own weights off the model, or freezes it.

    `keep`: the caller's model, which gets no other form; the head of an adapter's base stays too, for its files name it.
    """
    lm = causal_lm(model)
    head = lm.get_output_embeddings()
    if head is None or head.weight is lm.get_input_embeddings().weight:
        return
    if keep or lm is not model:
        head.requires_grad_(False)
    else:
        lm.set_output_embeddings(None)


@contextmanager
def stock_attention(model: Any) -> Iterator[None]:
    """Temporarily restores the model's original attention: for the plain path, generation and saving."""
    lm = causal_lm(model)
    current = lm.config._attn_implementation
    if current != attention.NAME:
        yield
        return
    lm.set_attn_implementation(lm.finegrain_stock_attention)
    try:
        yield
    finally:
        lm.set_attn_implementation(attention.NAME)


def use_branched_attention(model: Any) -> None:
    """Switches a model to the packed attention and stores the original one."""
    lm = causal_lm(model)
    attention.register()
    if lm.config._attn_implementation != attention.NAME:
        lm.finegrain_stock_attention = lm.config._attn_implementation
    lm.set_attn_implementation(attention.NAME)


def use_own_attention(model: Any) -> None:
    """Switches a model back to its original attention permanently."""
    lm = causal_lm(model)
    if lm.config._attn_implementation == attention.NAME:
        lm.set_attn_implementation(lm.finegrain_stock_attention)


def silence_dropout(model: nn.Module) -> dict[str, float]:
    """Sets every dropout rate to 0 and returns the rates that were not: log-ratios under random masks are invalid."""
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            found[name] = module.p
            module.p = 0.0
        for attribute, rate in list(vars(module).items()):
            if "dropout" in attribute and isinstance(rate, float) and rate:
                found[f"{name}.{attribute}"] = rate
                setattr(module, attribute, 0.0)
    return found
