"""`finegrain reward posterior`: a Laplace posterior of a trained reward model, fitted on its training pairs and stored beside it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from finegrain.commands.posterior import PosteriorSettings
from finegrain.data.records import Shape
from finegrain.data.store import longest_row
from finegrain.errors import CheckpointError, DataError
from finegrain.models.adapters import take_adapter_out
from finegrain.models.curvature import LabelledPair, find_layers, fit_layers
from finegrain.models.hub_files import check_folder
from finegrain.models.layer_posterior import LAYERS_FILE, save_layers
from finegrain.models.posterior import POSTERIOR_FILE, refuse_parts, reward_rows, save_posteriors
from finegrain.models.reward_models import load_reward_model
from finegrain.models.score import split_by_budget
from finegrain.models.scorer import Request
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import load_data, open_session, prepare_scorer
from finegrain.recipes.training.margins import margins_as_trained
from finegrain.rewards.bradley_terry import pair_labels
from finegrain.rewards.laplace import (
    EvidenceVariance,
    FixedVariance,
    answer_features,
    determined_directions,
    fit_posterior,
    log_evidence,
    pair_curvature,
)
from finegrain.scoring.reward_model import head_of
from finegrain.train.collate import TrainingSet, collate
from finegrain.types import Pair

ROLES = ("chosen", "rejected")


def run_posterior(settings: PosteriorSettings) -> dict[str, Any]:
    """Write the posterior and its facts into the folder of the run; returns the facts."""
    check_folder(settings.run)
    for name in (POSTERIOR_FILE, LAYERS_FILE):
        if (settings.run / name).exists():
            raise CheckpointError(f"{settings.run / name} already exists; delete it to fit another one")
    quiet_transformers()
    model = load_reward_model(settings.run)
    head, network = head_of(model), model.policy.model
    if settings.over == "lora":
        refuse_parts(head)
        network = take_adapter_out(network, settings.run)
    else:
        reward_rows(head, model.head)
    session = open_session(network, settings, tokenizer=model.policy.tokenizer, micro_tokens=settings.micro_tokens)
    data = load_data(session, settings.data, Shape.PREFERENCE, limit=settings.limit)
    scorer = prepare_scorer(session, longest_row(data.examples, ROLES)).eval()
    prior = EvidenceVariance() if settings.prior_variance is None else FixedVariance(variance=settings.prior_variance)
    asked = {"pairs": len(data.examples), "over": settings.over, "prior": "evidence" if settings.prior_variance is None else "given"}
    fit = _fit_adapter if settings.over == "lora" else _fit_last_layer
    return fit(settings, Fitting(session, scorer, head, model.head, data.examples, prior, asked | {"data": data.report}))


class Fitting(NamedTuple):
    """What a posterior is fitted to."""

    session: Any
    scorer: Any
    head: Any
    module: nn.Module
    examples: Any
    prior: Any
    asked: Mapping[str, Any]
    """What is known before the fit; part of the facts on disk."""


def _fit_last_layer(settings: PosteriorSettings, fitting: Fitting) -> dict[str, Any]:
    """One Gaussian per linear reward; Laplace's approximation is the only one."""
    rows = reward_rows(fitting.head, fitting.module)
    curvatures = torch.zeros(len(rows), rows.shape[1], rows.shape[1], dtype=torch.float64)
    likelihood = torch.zeros(len(rows), dtype=torch.float64)
    for differences, logits, weight in _iterate_batches(
        settings.run, fitting.session, fitting.scorer, fitting.head, fitting.module, fitting.examples
    ):
        for member, (difference, logit) in enumerate(zip(differences, logits, strict=True)):
            curvatures[member] += pair_curvature(difference, logit, weight)
            likelihood[member] += float((nn.functional.logsigmoid(logit.double()) * weight).sum())
    posteriors = [fit_posterior(row.cpu(), curvature, fitting.prior) for row, curvature in zip(rows, curvatures, strict=True)]
    facts = {**fitting.asked, **_describe(posteriors, likelihood)}
    save_posteriors(posteriors, facts, settings.run)
    return _shorten(settings.run / POSTERIOR_FILE, facts)


def _fit_adapter(settings: PosteriorSettings, fitting: Fitting) -> dict[str, Any]:
    """One Gaussian over all matrices of the adapter, with a Kronecker-factored curvature for each."""
    layers = find_layers(fitting.scorer.model)
    module = fitting.module.to(fitting.scorer.device)
    posterior = fit_layers(
        fitting.scorer, fitting.head, module, layers, _iterate_pairs(settings.run, fitting.examples), rank=settings.rank, prior=fitting.prior
    )
    curvature = torch.cat([factor.eigenvalues for factor in posterior.factors.values()])
    facts = {
        **fitting.asked,
        "rank": settings.rank,
        "matrices": len(posterior.factors),
        "prior_variance": [posterior.prior_variance],
        "determined_directions": [determined_directions(curvature, posterior.prior_variance)],
        "directions": sum(layer.weight.numel() for layer in layers.values()),
    }
    save_layers(posterior, layers, module, facts, settings.run)
    return _shorten(settings.run / LAYERS_FILE, facts)


def _iterate_pairs(run: Path, examples: Any) -> Iterator[Any]:
    """Pairs one by one, with the flip, margin and weight of their columns."""
    held = TrainingSet(examples, columns=margins_as_trained(run, examples))
    for row in range(len(examples)):
        batch = collate(held, [row], ROLES)
        said = pair_labels(Pair(sides={}, columns=batch.columns))
        yield LabelledPair(batch.groups[0], float(said["flip"]), float(said["margin"]), float(batch.columns.get("weight", 1.0)))


def _shorten(file: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the command prints: the facts without the report on the data."""
    return {"out": str(file), **{name: value for name, value in facts.items() if name != "data"}}


def _iterate_batches(
    run: Path, session: Any, scorer: Any, head: Any, module: nn.Module, examples: Any
) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]:
    """Micro-batch by micro-batch and per linear reward: differences of features (B, H), logits of the pairs (B,), and the pairs' weights (B,)."""
    rows = reward_rows(head, module).to(scorer.device)
    states = nn.Linear(rows.shape[1], rows.shape[1], bias=False, dtype=rows.dtype, device=scorer.device)
    nn.init.eye_(states.weight)
    held = TrainingSet(examples, columns=margins_as_trained(run, examples))
    with torch.no_grad(), session.precision.autocast():
        for part in split_by_budget(held.packed_tokens(ROLES).tolist(), session.precision.micro_tokens):
            batch = collate(held, part, ROLES, device=scorer.device)
            pair = batch.pair(scorer(batch.groups, Request(False, outputs=states)))
            differences, logits = [], []
            labels = pair_labels(pair)
            for row in rows:
                features = [_read_features(head, row, pair.sides[role]) for role in ROLES]
                difference = (features[0] - features[1]).cpu().double()
                differences.append(difference)
                flip, margin = (torch.as_tensor(labels[name]).cpu().double() for name in ("flip", "margin"))
                logits.append(flip * (difference @ row.cpu().double()) - margin)
            weight = pair.columns.get("weight", torch.ones(len(part)))
            if not all(bool(one.isfinite().all()) for one in differences):
                raise DataError("hidden states of the pairs are not finite; are the model's weights? try --dtype float32")
            yield differences, logits, weight.cpu().double()


def _read_features(head: Any, row: Tensor, side: Any) -> Tensor:
    return answer_features(head.readout, side.outputs @ row, side.outputs, side.mask)


def _describe(posteriors: Sequence[Any], likelihood: Tensor) -> dict[str, Any]:
    """Per linear reward: the prior variance, how many directions the pairs determine, and the evidence."""
    norms = [float(one.weight.square().sum()) for one in posteriors]
    evidence = [
        log_evidence(float(value), one.curvature, norm, one.prior_variance) for one, norm, value in zip(posteriors, norms, likelihood, strict=True)
    ]
    return {
        "prior_variance": [one.prior_variance for one in posteriors],
        "determined_directions": [determined_directions(one.curvature, one.prior_variance) for one in posteriors],
        "directions": len(posteriors[0].weight),
        "log_evidence": evidence,
    }
