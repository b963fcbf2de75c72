"""`finegrain posterior`: how unsure its training pairs leave a reward model, fitted after training and kept beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.errors import CheckpointError, DataError, UsageError

ROLES = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class PosteriorOf:
    """Fit the Laplace posterior over the reward's last layer on the pairs it was trained on; `finegrain score` then says a std."""

    run: Path
    """A reward model: the folder that `finegrain reward` wrote, or a checkpoint of one label."""
    data: str
    """The pairs it was trained on: json, jsonl(.gz), csv or parquet file, a folder of them, or a Hub name."""
    prior_variance: float | None = None
    """s2 of the weights; by default the one under which the pairs are most probable."""
    limit: int | None = None
    """Read at most this many rows."""
    max_length: int = 1024
    """Longest prompt + answer in tokens, as in training."""
    micro_tokens: int = 2048
    """Tokens of one forward pass."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Arithmetic of the backbone; the posterior itself is float64."""

    def __post_init__(self) -> None:
        if self.prior_variance is not None and not 0 < self.prior_variance < float("inf"):
            raise UsageError(f"--prior-variance is positive and finite, got {self.prior_variance}")


def run_posterior(settings: PosteriorOf) -> dict[str, Any]:
    """posterior.safetensors and posterior.json in the run's folder, and what they say."""
    from finegrain.data.records import Shape
    from finegrain.data.store import token_lengths
    from finegrain.models.lora import Lora
    from finegrain.models.posterior import POSTERIOR_FILE, reward_rows, save_posteriors
    from finegrain.models.reward_models import load_reward_model
    from finegrain.recipes.entry import quiet_transformers
    from finegrain.recipes.judging.reward_judge import head_of
    from finegrain.recipes.settings import Common, Training
    from finegrain.recipes.setup.session import load_data, open_session, prepare_scorer
    from finegrain.rewards.laplace import EvidenceVariance, FixedVariance, fit_posterior, pair_curvature

    if (settings.run / POSTERIOR_FILE).exists():
        raise CheckpointError(f"{settings.run / POSTERIOR_FILE} is there already; delete it to fit another one")
    quiet_transformers()
    model = load_reward_model(settings.run)
    head = head_of(model)
    rows = reward_rows(head, model.head)
    common = Common(limit=settings.limit, max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
    training = Training(micro_tokens=settings.micro_tokens)
    session = open_session(model.policy.model, common, training, Lora(), tokenizer=model.policy.tokenizer)
    data = load_data(session, settings.data, Shape.PREFERENCE, limit=settings.limit)
    examples = data.examples
    prompts, answers = token_lengths(examples, ROLES)
    longest = int((prompts + np.max(answers, axis=0)).max())
    scorer = prepare_scorer(session, longest).eval()
    curvatures = torch.zeros(len(rows), rows.shape[1], rows.shape[1], dtype=torch.float64)
    likelihood = torch.zeros(len(rows), dtype=torch.float64)
    for differences, logits, weight in _pairs(session, scorer, head, model.head, examples):
        for member, (difference, logit) in enumerate(zip(differences, logits, strict=True)):
            curvatures[member] += pair_curvature(difference, logit, weight)
            likelihood[member] += float((nn.functional.logsigmoid(logit.double()) * weight).sum())
    prior = EvidenceVariance() if settings.prior_variance is None else FixedVariance(variance=settings.prior_variance)
    posteriors = [fit_posterior(row.cpu(), curvature, prior) for row, curvature in zip(rows, curvatures, strict=True)]
    facts = _facts(settings, posteriors, likelihood, len(examples))
    save_posteriors(posteriors, {**facts, "data": data.report}, settings.run)
    return {"out": str(settings.run / POSTERIOR_FILE), **facts}


def _pairs(session: Any, scorer: Any, head: Any, module: nn.Module, examples: Any) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]:
    """Micro-batch by micro-batch and per linear reward: differences of features (B, H), logits of the pairs (B,), and the pairs' weights (B,)."""
    from finegrain.models.posterior import reward_rows
    from finegrain.models.score import budgeted
    from finegrain.models.scorer import Request
    from finegrain.rewards.bradley_terry import BradleyTerry
    from finegrain.train.collate import TrainingSet, collate

    rows = reward_rows(head, module).to(scorer.device)
    states = nn.Linear(rows.shape[1], rows.shape[1], bias=False, dtype=rows.dtype, device=scorer.device)
    nn.init.eye_(states.weight)
    held = TrainingSet(examples)
    with torch.no_grad(), session.how.autocast():
        for part in budgeted(held.packed_tokens(ROLES).tolist(), session.how.micro_tokens):
            batch = collate(held, part, ROLES, device=scorer.device)
            pair = batch.pair(scorer(batch.groups, Request(False, outputs=states)))
            differences, logits = [], []
            labels = BradleyTerry().labels(pair)
            for row in rows:
                features = [_features(head, row, pair.sides[role]) for role in ROLES]
                difference = (features[0] - features[1]).double().cpu()
                differences.append(difference)
                flip, margin = (torch.as_tensor(labels[name], dtype=torch.float64).cpu() for name in ("flip", "margin"))
                logits.append(flip * (difference @ row.double().cpu()) - margin)
            weight = pair.columns.get("weight", torch.ones(len(part)))
            if not all(bool(one.isfinite().all()) for one in differences):
                raise DataError("hidden states of the pairs are not finite; are the model's weights? try --dtype float32")
            yield differences, logits, weight.double().cpu()


def _features(head: Any, row: Tensor, side: Any) -> Tensor:
    from finegrain.rewards.laplace import answer_features

    return answer_features(head.readout, side.outputs @ row, side.outputs, side.mask)


def _facts(settings: PosteriorOf, posteriors: Sequence[Any], likelihood: Tensor, pairs: int) -> dict[str, Any]:
    """What was found, per linear reward: the prior variance, how many directions the pairs determine, and the evidence."""
    from finegrain.rewards.laplace import log_evidence

    norms = [float(one.weight.square().sum()) for one in posteriors]
    evidence = [
        log_evidence(float(value), one.curvature, norm, one.prior_variance) for one, norm, value in zip(posteriors, norms, likelihood, strict=True)
    ]
    scaled = [one.curvature * one.prior_variance for one in posteriors]
    return {
        "pairs": pairs,
        "prior_variance": [one.prior_variance for one in posteriors],
        "prior": "evidence" if settings.prior_variance is None else "given",
        "determined_directions": [float((value / (1 + value)).sum()) for value in scaled],
        "directions": len(posteriors[0].weight),
        "log_evidence": evidence,
    }
