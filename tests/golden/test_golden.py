"""The reference values beside this file, with the rule of the reference check: rtol 1e-5, atol 1e-6, integers exact."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.golden.adapters import ADAPTERS, SKIPPED

RTOL, ATOL = 1e-5, 1e-6
FILES = {json.loads(path.read_text())["method"]: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("*.json"))}
CASES = [(slug, case) for slug, file in FILES.items() for case in file["cases"]]
FEWEST_FILES, FEWEST_CASES = 3, 8

DESCRIBED: dict[str, dict[str, object]] = {
    "ava": {"prior": "N(0,1)", "lambda": 1.0, "beta": 1.0, "reduction": "mean over transitions"},
    "figa": {"pad_id": 0},
    "irl-insights": {"reduction": "none (official code backpropagates the batch element directly)", "function": "metrics of get_evaluation"},
    "ppo-rlhf": {
        "agg": "token-mean",
        "kl_estimator": "k1",
        "whiten_rewards": False,
        "note": "groups are consecutive blocks of num_generations",
        "num_items_in_batch": "mask.sum()",
    },
    "secrets-rm": {"pad_token_id": 0},
    "segment-reward": {"aggregation": "mean over segment ends"},
}
"""Parameters that an adapter need not read as long as they have this value: they say what the reference does."""
SIZES = {"function", "n_lora", "n_logits", "n_kfac", "N", "NC"}
"""Parameters that the shapes of the inputs say as well, or that name the case."""


class Recorded(dict[str, Any]):
    """A mapping that knows which of its entries were looked at."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)

    def items(self) -> Any:
        self.read |= self.keys()
        return super().items()


def plain(value: Any) -> Any:
    """Tensors and arrays as nested lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def agree(got: Any, want: Any, where: str) -> None:
    got = plain(got)
    if isinstance(want, dict):
        for key, value in want.items():
            agree(got[key], value, f"{where}.{key}")
    elif isinstance(want, list):
        assert isinstance(got, list), f"{where}: expected a list, got {got!r}"
        assert len(got) == len(want), f"{where}: expected {len(want)} items, got {len(got)}"
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            agree(g, w, f"{where}[{index}]")
    elif isinstance(want, float):
        assert isinstance(got, int | float), f"{where}: expected {want}, got {got!r}"
        equal = math.isnan(got) if math.isnan(want) else abs(got - want) <= ATOL + RTOL * abs(want)
        assert equal, f"{where}: expected {want}, got {got}"
    elif isinstance(want, int) and not isinstance(want, bool):
        assert isinstance(got, int | float), f"{where}: expected {want}, got {got!r}"
        assert abs(got - want) <= ATOL, f"{where}: expected {want}, got {got}"
    else:
        assert got == want, f"{where}: expected {want!r}, got {got!r}"


def test_collected() -> None:
    print(f"{len(FILES)} files of reference values, {len(CASES)} cases")
    assert len(FILES) >= FEWEST_FILES
    assert len(CASES) >= FEWEST_CASES
    assert FILES.keys() == ADAPTERS.keys()


@pytest.mark.parametrize(("slug", "case"), CASES, ids=[f"{slug}-{case['name']}" for slug, case in CASES])
def test_reference_values(slug: str, case: dict[str, Any]) -> None:
    params, inputs = Recorded(case["params"]), Recorded(case["inputs"])
    got = ADAPTERS[slug](params, inputs)
    unread = {name: value for name, value in case["params"].items() if name not in params.read | SIZES}
    assert unread.items() <= DESCRIBED.get(slug, {}).items(), "would agree with any value"
    assert case["inputs"].keys() <= inputs.read
    compared = 0
    for prefix, wanted, found in (("", case["outputs"], got), ("grads.", case.get("grads", {}), got.get("grads", {}))):
        for name, want in wanted.items():
            if (slug, case["name"], prefix + name) in SKIPPED or (slug, "*", prefix + name) in SKIPPED:
                continue
            agree(found[name], want, f"{slug} {case['name']} {prefix}{name}")
            compared += 1
    assert compared > 0


def test_the_comparison_can_fail() -> None:
    for got, want in ((1.1, 1.0), ([1.0], [1.0, 2.0]), (None, 1.0), (2, 1), (float("nan"), 1.0), ("a", "b")):
        with pytest.raises(AssertionError):
            agree(got, want, "value")
