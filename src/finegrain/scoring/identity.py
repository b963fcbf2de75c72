"""What makes two rewards the same: content hashes and settings that change scores, for tables of scores that outlive a run."""

from finegrain.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from finegrain.models.load import Policy
from finegrain.models.reference import cache_folder
from finegrain.models.score import Precision
from finegrain.types import Json


def identify_weights(policy: Policy, precision: Precision, max_length: int) -> Json:
    """Of a model that reads tokens: hashes of weights and tokenizer, the longest row and the arithmetic."""
    return {
        "source": policy.source,
        "weights": model_fingerprint(policy, cache_folder()),
        "tokenizer": tokenizer_fingerprint(policy.tokenizer),
        "max_length": max_length,
        "dtype": precision.name,
    }
