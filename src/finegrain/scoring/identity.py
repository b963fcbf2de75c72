"""What makes two rewards the same: content hashes and settings that change scores, for tables of scores that outlive a run."""

import hashlib
import json
from pathlib import Path

from finegrain.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from finegrain.models.load import Policy, master_dtype
from finegrain.models.reference import cache_folder
from finegrain.models.reward_models import FACTS_FILE
from finegrain.scoring.reward_model import RewardJudge
from finegrain.types import Json

SCORING = ("head", "location")
"""Entries of a checkpoint's facts that change its scores, beside the model that cuts its segments."""


def model_identity(judge: RewardJudge, max_length: int) -> Json:
    """Of a reward model: hashes of weights and tokenizer, what its head means, the longest row and the arithmetic."""
    source = judge.asked.name
    facts_file = Path(source) / FACTS_FILE
    facts = json.loads(facts_file.read_text()) if facts_file.exists() else {}
    master = master_dtype(judge.asked.precision.name)
    return {
        "kind": "reward model",
        "source": source,
        "weights": model_fingerprint(Policy(judge.asked.scorer.model, judge.tokenizer, source, master), cache_folder()),
        **{name: facts.get(name) for name in SCORING},
        "start_model": (facts.get("start_model") or {}).get("sha256"),
        "tokenizer": tokenizer_fingerprint(judge.tokenizer),
        "max_length": max_length,
        "dtype": judge.asked.precision.name,
    }


def function_identity(path: str) -> Json:
    """Of `file.py:name`: the function's name and the hash of its file; what the file imports is not looked at."""
    file, _, name = path.rpartition(":")
    return {"kind": "function", "source": path, "name": name, "file": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
