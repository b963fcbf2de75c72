"""`finegrain reward bound`: an upper bound on the score of any answer, fitted on clean pairs after training and stored beside the reward model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.commands.bound import BoundSettings
from finegrain.configure import to_json
from finegrain.data.holdout import split_holdout
from finegrain.data.records import Shape
from finegrain.data.store import longest_row
from finegrain.errors import CheckpointError, DataError
from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.models.bounds import BOUNDS_FILE, Guard, save_guard, score_row
from finegrain.models.hub_files import check_folder
from finegrain.models.reward_models import load_reward_model
from finegrain.ops.proportions import wilson
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import load_data, open_session, prepare_scorer
from finegrain.recipes.training.frozen_features import feature_rows
from finegrain.rewards.clipped_head import same_order
from finegrain.rewards.mm_calibration import clip_features, detection_threshold
from finegrain.scoring.reward_model import head_of

ROLES = ("chosen", "rejected")


def run_bound(settings: BoundSettings) -> dict[str, Any]:
    """Write bounds.safetensors and bounds.json into the folder of the run; returns their facts."""
    check_folder(settings.run)
    if (settings.run / BOUNDS_FILE).exists():
        raise CheckpointError(f"{settings.run / BOUNDS_FILE} already exists; delete it to fit others")
    quiet_transformers()
    model = load_reward_model(settings.run)
    weight = score_row(head_of(model), model.head).cpu().double()
    session = open_session(model.policy.model, settings, seed=settings.seed, tokenizer=model.policy.tokenizer, micro_tokens=settings.micro_tokens)
    data = load_data(session, settings.data, Shape.PREFERENCE, limit=settings.limit)
    fitted, held, words = split_holdout(data.examples, settings.holdout, settings.seed, single_rows=False)
    for line in words:
        session.say(line)
    if not len(fitted) or not len(held):
        raise DataError(
            f"{settings.data}: bounds are fitted on some pairs and evaluated on others, with other prompts; there are {len(data.examples)} pairs"
        )
    features = _read_features(session, data.examples)
    apart = np.isin(data.examples.prompt_keys, held.prompt_keys)
    found = settings.fit(weight, features["chosen"][~apart], features["rejected"][~apart], settings.keep)
    clean = {role: values[apart] for role, values in features.items()}
    guard = Guard(weight, found.bounds, _fit_threshold(weight, found.bounds, clean, settings.deviations))
    facts = {
        "pairs": len(fitted),
        "held_out": len(held),
        "ceiling_before": found.ceiling_before,
        "ceiling": guard.ceiling,
        "threshold": guard.threshold,
        "agreement_fitted": found.agreement,
        **_evaluate_bounds(guard, clean),
    }
    for warning in (warnings := _find_warnings(facts)):
        session.say(f"warning: {warning}")
    save_guard(guard, {**facts, "settings": to_json(settings), "data": data.report}, settings.run)
    return {"out": str(settings.run / BOUNDS_FILE), **facts, "warnings": warnings}


def _read_features(session: Any, examples: Any) -> dict[str, Tensor]:
    """By role, the features of the last token of every answer, (N, H), float64; cached."""
    scorer = prepare_scorer(session, longest_row(examples, ROLES)).eval()
    cache = replace(session.cache, kind="features", measure=feature_rows)
    rows = cache.values(session.policy, scorer, examples, ROLES, session.precision, session.usage)
    found = {role: torch.from_numpy(np.stack(rows[role])).double() for role in ROLES}
    if not all(bool(values.isfinite().all()) for values in found.values()):
        raise DataError("hidden states of the pairs are not finite; are the model's weights? try --dtype float32")
    return found


def _fit_threshold(weight: Tensor, bounds: Any, clean: Mapping[str, Tensor], deviations: float) -> float:
    """The detection threshold: how much clipping may lower a score before the answer is flagged."""
    both = torch.cat([clean[role] for role in ROLES])
    return detection_threshold((both - clip_features(both, bounds)) @ weight, deviations)


def _evaluate_bounds(guard: Any, clean: Mapping[str, Tensor]) -> dict[str, Any]:
    """The effect of the bounds on held-out pairs: order kept, accuracy without and with them, change of the scores."""
    raw = {role: clean[role] @ guard.weight for role in ROLES}
    clipped = {role: clip_features(clean[role], guard.bounds) @ guard.weight for role in ROLES}
    kept = same_order(guard.weight, clean["chosen"], clean["rejected"], guard.bounds)
    change = torch.cat([clipped[role] - raw[role] for role in ROLES])
    return {
        "agreement": wilson(kept.double().numpy()).as_json(),
        "accuracy_raw": _measure_accuracy(raw),
        "accuracy": _measure_accuracy(clipped),
        "largest_clean_score": float(torch.cat(list(raw.values())).max()),
        "shift": float(change.square().mean().sqrt()),
    }


def _measure_accuracy(scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """Share of the pairs whose chosen answer scores higher, with its interval."""
    return pair_accuracy(scores["chosen"].numpy(), scores["rejected"].numpy()).accuracy.as_json()


def _find_warnings(facts: Mapping[str, Any]) -> list[str]:
    """What is suspicious about the bounds."""
    found = []
    if facts["ceiling"] < facts["largest_clean_score"]:
        found.append(
            f"no score exceeds {facts['ceiling']:.4g} now, and the best clean answer had {facts['largest_clean_score']:.4g}: good ones may tie; "
            "fewer steps (--fit.epochs) or a stricter --fit.price.agreement keep more"
        )
    if facts["ceiling"] == facts["ceiling_before"]:
        found.append(
            "no bounds below the start's kept enough of the pairs in order: the start's stand; lower --fit.price.start, --fit.lr or the agreement"
        )
    return found
