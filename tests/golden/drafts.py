"""Adapter of the verification of drafted tokens."""

from finegrain.generate.lookup import count_accepted
from tests.golden.given import Adapters, Values


def ems_sd(params: Values, inputs: Values) -> Values:
    counts, tokens, predictions = (inputs[name] for name in ("token_nums_per_sample", "packed_input_tokens", "packed_greedy_predictions"))
    return {"accept_length": count_accepted(counts, tokens, predictions, {params["eos"]})}


ADAPTERS: Adapters = {"ems-sd": ems_sd}
