"""Reward models of others: an answer's score as it is read here beside the number of the stock class, before the first row is scored."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.errors import ModelError
from finegrain.models.reward_models import SEQUENCE, Stock
from finegrain.models.score import Precision
from finegrain.models.scorer import causal_lm, stock_attention
from finegrain.scoring.outputs import LoadedRewardModel
from finegrain.scoring.records import Scores

TOLERANCE = {"float64": 1e-6, "float32": 1e-3}
"""By arithmetic, relative to scores of 1 or more; half precision knows scores to a few hundredths."""
HALF = 5e-2
LOOKS_AHEAD = {"float64": 1e-9, "float32": 1e-5}
"""The same for states before a token that is another one: of one shape, so that a causal model differs by nothing but how experts are batched."""


def padding_of(model: LoadedRewardModel, stock: Stock) -> int | None:
    """The padding token that stock pooling skips at the end of an answer, be it the end token; None for classes that judge every token."""
    pad: int | None = model.scorer.model.config.get_text_config().pad_token_id
    return pad if stock is SEQUENCE else None


def before_padding(example: Example, pad: int) -> Example:
    """The example with the padding tokens at the end of its answers out of the mask: the stock class reads the token before them."""
    responses = dict(example.responses)
    for role in responses:
        kept = np.flatnonzero(responses[role].ids != pad)
        if len(kept) and kept[-1] + 1 < len(responses[role].ids):
            mask = np.array(responses[role].mask)
            mask[kept[-1] + 1 :] = False
            responses[role] = replace(responses[role], mask=mask)
    return replace(example, responses=responses)


def check_causal(model: Any, precision: Precision, name: str, ids: torch.Tensor) -> None:
    """Raises ModelError for an encoder, whose tokens look at those that follow them: what stands on a token is then no score of the answer so far."""
    lm = causal_lm(model)
    was_training = model.training
    model.eval()
    other = ids.clone()
    other[:, -1] = ids[:, -2] if int(ids[0, -1]) != int(ids[0, -2]) else (ids[:, -1] + 1) % lm.config.get_text_config().vocab_size
    if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        precision = replace(precision, name="float32", autocast=nullcontext)  # half precision would hide a small model's look ahead
    try:
        with torch.no_grad(), precision.autocast(), stock_attention(model):
            one, two = (lm.base_model(input_ids=row).last_hidden_state[0, :-1].float() for row in (ids, other))
    finally:
        model.train(was_training)
    if float((one - two).abs().max()) > LOOKS_AHEAD.get(precision.name, HALF) * max(1.0, float(one.abs().max())):
        raise ModelError(f"{name} ({type(lm).__name__}) is an encoder, whose tokens look at what follows; only causal models are read")


def check_number(model: LoadedRewardModel, stock: Stock, example: Example, role: str, scores: Scores) -> None:
    """Raises ModelError where the stock class gives the answer, or its tokens, other numbers than the head does."""
    assert scores.tokens is not None
    mask = torch.from_numpy(np.array(example.responses[role].mask))
    with torch.no_grad(), model.precision.autocast(), stock_attention(model.scorer.model):
        logits = model.scorer.model(input_ids=ids_of(model, example, role)).logits[0].double().cpu()
    last = int(mask.nonzero()[-1]) + 1
    numbers = logits if stock is SEQUENCE else logits[len(example.prompt) :, 0][mask[:last]]
    ours = (scores.answer.mean[None] if stock is SEQUENCE else scores.tokens.mean[mask]).double()
    worst = int((numbers - ours).abs().argmax())
    number, read = float(numbers[worst]), float(ours[worst])
    if not abs(number - read) <= TOLERANCE.get(model.precision.name, HALF) * max(1.0, abs(number)):
        kind, place = type(model.scorer.model).__name__, "the first answer" if stock is SEQUENCE else "a token of the first answer"
        raise ModelError(
            f"{model.name} ({kind}) gives {place} {number:.6g} in transformers, and {read:.6g} as its tokens are read here: "
            "it makes its score in another way"
        )


def ids_of(model: LoadedRewardModel, example: Example, role: str) -> torch.Tensor:
    """(1, P + T): what transformers is given; tokens that a template writes after the answer are not read."""
    response = example.responses[role]
    last = int(np.flatnonzero(response.mask)[-1]) + 1
    return torch.from_numpy(np.concatenate([example.prompt, response.ids[:last]]).astype(np.int64))[None].to(model.scorer.device)
