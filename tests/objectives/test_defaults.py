"""Defaults of the papers, of TRL where a paper has none, and ours where marked; none changes unnoticed."""

import pytest

from finegrain import catalog
from finegrain.configure import to_json

INFERENCE = {
    "beta": 1.0,
    "kl": 1.0,
    "td": 1.0,
    "gamma": 1.0,
    "action_value": {"choice": "log-prob", "alpha": 1.0},
    "likelihood": {"choice": "every-token"},
    "scale": {"choice": "start-scale"},
}

DEFAULTS = {
    "dpo": (1e-6, {"beta": 0.1}),
    "conservative": (1e-6, {"beta": 0.1, "label_smoothing": 0.1}),
    "robust": (1e-6, {"beta": 0.1, "label_smoothing": 0.1}),
    "reference-free": (1e-6, {"beta": 0.1}),
    "ipo": (1e-6, {"beta": 0.1}),
    "ipo-averaged": (1e-6, {"beta": 0.1}),
    "hinge": (1e-6, {"beta": 0.1}),
    "slic": (1e-6, {"beta": 0.1, "nll": 1.0}),
    "simpo": (1e-6, {"beta": 2.0, "gamma": 1.0}),
    "cpo": (1e-6, {"beta": 0.1, "nll": 1.0}),
    "orpo": (8e-6, {"beta": 0.1}),
    "kto": (1e-6, {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}),
    "exo": (1e-6, {"beta": 0.1, "epsilon": 1e-3}),
    "nca": (1e-6, {"beta": 0.1}),
    "bco": (1e-6, {"beta": 0.1}),
    "sppo": (1e-6, {"beta": 0.1}),
    "apo-zero": (1e-6, {"beta": 0.1}),
    "apo-down": (1e-6, {"beta": 0.1}),
    "aot": (1e-6, {"beta": 0.1, "label_smoothing": 0.0}),
    "aot-unpaired": (1e-6, {"beta": 0.1, "label_smoothing": 0.0}),
    "sigmoid-norm": (1e-6, {"beta": 5.0}),
    "discopop": (1e-6, {"beta": 0.1, "tau": 0.05}),
    "f-dpo": (1e-6, {"beta": 0.1, "divergence": {"choice": "forward-kl"}}),
    "nll": (2e-5, {}),
    "arj": (2e-5, {}),
    "ava-d": (2e-5, {"inference": INFERENCE, "reward_weight": {"choice": "uniform"}}),
    "ava-p": (
        1e-6,
        {
            "inference": INFERENCE,
            "negative": {"choice": "unlikelihood"},
            "ranking": {"choice": "sigmoid"},
            "cer": 1.0,
            "balance": {"choice": "start-share", "share": 0.5, "every": 10},
            "reward_weight": {"choice": "uniform"},
        },
    ),
    "irl-sft": (5e-7, {"beta": 0.1, "link": {"choice": "logistic-link"}}),
    "token-distillation": (1e-6, {"beta": 0.1}),
}


def test_every_objective_is_here() -> None:
    assert set(DEFAULTS) == set(catalog.names("objective"))


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    settings = catalog.load("objective", name)()
    assert (settings.learning_rate, to_json(settings)) == DEFAULTS[name]
