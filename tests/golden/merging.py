"""Merging of checkpoints: expo."""

import torch

from finegrain.weights.expo import Expo
from tests.golden.given import Adapters, Values, real


def expo(params: Values, inputs: Values) -> Values:
    method = Expo(alpha=params["alpha"])
    start, aligned = ({name: real(value) for name, value in inputs[side].items()} for side in ("sft", "aligned"))
    return {"extrapolated": {name: method([aligned[name]], start[name], torch.float64) for name in start}}


ADAPTERS: Adapters = {"expo": expo}
