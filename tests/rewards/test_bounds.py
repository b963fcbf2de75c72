"""Settings at the very bounds of their ranges are taken, those just beyond are refused. Test of checked.py."""

import math
from typing import Any

import pytest

from finegrain.errors import UsageError
from finegrain.ops.location import LocationNormaliser
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.rewards.clipped_head import FitBounds
from finegrain.rewards.diverse_preferences import Latent, Softmax
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.fine_grained import FineGrained
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.laplace import FixedVariance
from finegrain.rewards.lort import RetrainHead
from finegrain.rewards.mm_calibration import AdaptivePrice
from finegrain.rewards.rating import Rating
from finegrain.rewards.targets import GaussianTarget, OddsTarget, OrdinalTarget, SmoothedTarget

LINE = {"mean_slope": 0.0, "std_slope": 0.0, "mean_at_end": 0.0, "std_at_end": 1.0}
TAKEN: list[tuple[type, dict[str, Any]]] = [
    (AdaptivePrice, {"factor": 1.0}),
    (AdaptivePrice, {"agreement": 0.0}),
    (AdaptivePrice, {"agreement": 1.0}),
    (Ensemble, {"members": 2}),
    (EntropyCutoff, {"cutoff": 0.0}),
    (FineGrained, {"regulariser": 0.0, "most_changed": 1.0}),
    (FineGrained, {"regulariser": 0.5, "most_changed": 0.01}),
    (FitBounds, {"start": 1.0, "epochs": 1, "every": 1, "warmup": 0, "lr": 0.01}),
    (FitBounds, {"start": 0.51, "lr": 2.0}),
    (FixedVariance, {"variance": 1e-9}),
    (FixedVariance, {"variance": 1e9}),
    (GaussianEnsemble, {"members": 1}),
    (GaussianTarget, {"deviation": 0.01}),
    (Latent, {"members": 1, "latent": 1, "width": 1}),
    (LocationNormaliser, LINE | {"floor": 1.0}),
    (LocationNormaliser, LINE | {"floor": 0.01, "std_at_end": 0.5}),
    (OddsTarget, {"odds": 1.01}),
    (OrdinalTarget, {"width": 0.01}),
    (Rating, {"classes": 2, "temperature": 0.01}),
    (RetrainHead, {"epochs": 1, "batch_size": 1, "momentum": 0.0, "lr": 2.0}),
    (SmoothedTarget, {"smoothing": 0.0}),
    (Softmax, {"tau": 0.01}),
]
REFUSED: list[tuple[type, dict[str, Any]]] = [
    (AdaptivePrice, {"start": 0.0}),
    (AdaptivePrice, {"factor": 0.99}),
    (AdaptivePrice, {"agreement": -0.01}),
    (AdaptivePrice, {"agreement": 1.01}),
    (Ensemble, {"members": 1}),
    (EntropyCutoff, {"cutoff": -0.01}),
    (FineGrained, {"regulariser": -0.01}),
    (FineGrained, {"most_changed": 0.0}),
    (FineGrained, {"most_changed": 1.01}),
    (FitBounds, {"start": 0.5}),
    (FitBounds, {"start": 1.01}),
    (FitBounds, {"epochs": 0}),
    (FitBounds, {"every": 0}),
    (FitBounds, {"warmup": -1}),
    (FitBounds, {"lr": 0.0}),
    (FixedVariance, {"variance": 0.0}),
    (FixedVariance, {"variance": math.inf}),
    (GaussianEnsemble, {"members": 0}),
    (GaussianTarget, {"deviation": 0.0}),
    (Latent, {"members": 0}),
    (Latent, {"latent": 0}),
    (Latent, {"width": 0}),
    (LocationNormaliser, LINE | {"std_at_end": 0.0}),
    (LocationNormaliser, LINE | {"floor": 0.0}),
    (LocationNormaliser, LINE | {"floor": 1.01}),
    (OddsTarget, {"odds": 1.0}),
    (OrdinalTarget, {"width": 0.0}),
    (Rating, {"classes": 1}),
    (Rating, {"temperature": 0.0}),
    (RetrainHead, {"epochs": 0}),
    (RetrainHead, {"batch_size": 0}),
    (RetrainHead, {"lr": 0.0}),
    (RetrainHead, {"momentum": 1.0}),
    (RetrainHead, {"momentum": -0.01}),
    (SmoothedTarget, {"smoothing": 1.0}),
    (SmoothedTarget, {"smoothing": -0.01}),
    (Softmax, {"tau": 0.0}),
    (Softmax, {"tau": math.inf}),
]


def named(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else " ".join(f"{name}={value}" for name, value in case.items() if LINE.get(name) != value)


@pytest.mark.parametrize(("settings", "given"), TAKEN, ids=named)
def test_taken(settings: type, given: dict[str, Any]) -> None:
    made = settings(**given)
    assert {name: getattr(made, name) for name in given} == given


@pytest.mark.parametrize(("settings", "given"), REFUSED, ids=named)
def test_refused(settings: type, given: dict[str, Any]) -> None:
    changed = [name for name, value in given.items() if LINE.get(name) != value]
    with pytest.raises(UsageError, match="|".join(changed)):
        settings(**given)
