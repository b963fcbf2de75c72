"""Classifiers of texts: any sequence-classification checkpoint, or ours that is linear in n-grams."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from finegrain.errors import ModelError, UsageError
from finegrain.files import cache_folder
from finegrain.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from finegrain.models.load import Policy, load_tokenizer, master_dtype
from finegrain.models.ngrams import NGrams, count_ngrams
from finegrain.models.score import Precision
from finegrain.models.stock import load_stock, missing_weights_error, read_config
from finegrain.types import Json

FACTS_FILE, WEIGHTS_FILE = "classifier.json", "weights.safetensors"
BATCH = 16
"""Texts of one forward pass."""


@runtime_checkable
class TextClassifier(Protocol):
    """Gives every text a logit per class."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; two where there is one logit."""

    @property
    def independent(self) -> bool:
        """Whether every class has a yes and a no of its own."""

    def logits(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Float[Tensor, "B K"]:
        """float64; `prompts`: for classifiers of two texts, the first of each."""

    @property
    def cut(self) -> int:
        """Texts so far whose end it did not read."""

    def identity(self) -> Json:
        """Hashes of what its numbers depend on."""


@dataclass(frozen=True)
class LinearClassifier:
    """Linear in the n-grams of a text: one row of weights and a bias for two classes, else one per class."""

    weight: Float[Tensor, "K F"]
    bias: Float[Tensor, " K"]
    labels: tuple[str, ...]
    ngrams: NGrams
    sha256: str = ""
    """Of its file."""
    independent: bool = False
    cut: int = 0

    def logits(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Float[Tensor, "B K"]:
        """float64; prompts are not read, and an error."""
        if prompts is not None:
            raise UsageError("a linear classifier reads one text: leave out --reads prompt-and-answer")
        features = count_ngrams(texts, self.ngrams)
        return torch.from_numpy(features @ self.weight.double().numpy().T) + self.bias.double()

    def identity(self) -> Json:
        """The hash of its weights."""
        return {"weights": self.sha256}


@dataclass(frozen=True)
class StockClassifier:
    """A sequence-classification checkpoint of transformers."""

    model: Any
    tokenizer: Any
    source: str
    precision: Precision
    longest: int
    """Tokens of a text; what is longer is cut and counted."""
    labels: tuple[str, ...]
    independent: bool
    seen: dict[str, int] = field(default_factory=lambda: {"cut": 0})

    @property
    def cut(self) -> int:
        """Texts so far whose end it did not read."""
        return self.seen["cut"]

    def logits(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Float[Tensor, "B K"]:
        """float64; with prompts the tokenizer's form of two texts."""
        size = BATCH if self.tokenizer.pad_token_id is not None else 1
        parts = [
            self._batch(texts[start : start + size], None if prompts is None else prompts[start : start + size])
            for start in range(0, len(texts), size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.labels), dtype=torch.float64)

    def _batch(self, texts: Sequence[str], prompts: Sequence[str] | None) -> Float[Tensor, "B K"]:
        given = (list(texts),) if prompts is None else (list(prompts), list(texts))
        whole = self.tokenizer(*given, truncation=False, verbose=False)["input_ids"]
        self.seen["cut"] += sum(len(ids) > self.longest for ids in whole)
        read = self.tokenizer(*given, truncation=True, max_length=self.longest, padding=len(texts) > 1, return_tensors="pt")
        if not read["input_ids"].shape[1]:  # a tokenizer without special tokens has none for an empty text
            raise ModelError(f"{self.source} cannot read an empty text: its tokenizer writes no token")
        with torch.no_grad(), self.precision.autocast():
            logits: Tensor = self.model(**read.to(self.model.device)).logits
        return logits.double().cpu()

    def identity(self) -> Json:
        """Hashes of weights and tokenizer, the longest text and the arithmetic."""
        policy = Policy(self.model, self.tokenizer, self.source, master_dtype(self.precision.name))
        return {
            "weights": model_fingerprint(policy, cache_folder()),
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "max_length": self.longest,
            "dtype": self.precision.name,
        }


def load_stock_classifier(source: str, device: torch.device, precision: Precision, longest: int) -> StockClassifier:
    """The classifier of a checkpoint folder or Hub name; raises ModelError for what is none."""
    facts = read_config(source)
    loaded = load_stock(AutoModelForSequenceClassification, source, facts, master=master_dtype(precision.name), trust_remote_code=False)
    if loaded.missing:
        raise missing_weights_error(source, "a sequence classifier", loaded.missing)
    tokenizer, config = load_tokenizer(source), loaded.model.config
    names = config.id2label or {}
    count = int(config.num_labels)
    labels = ("0", "1") if count == 1 else tuple(str(names.get(place, place)) for place in range(count))
    most = min(longest, int(tokenizer.model_max_length))
    independent = config.problem_type == "multi_label_classification"
    return StockClassifier(loaded.model.to(device).eval(), tokenizer, source, precision, most, labels, independent)


def save_linear(classifier: LinearClassifier, facts: Mapping[str, Any], folder: Path) -> None:
    """Weights, and what they mean, in a folder that exists; `facts` stand beside."""
    save_file({"weight": classifier.weight.float().contiguous(), "bias": classifier.bias.float().contiguous()}, folder / WEIGHTS_FILE)
    own = {"labels": list(classifier.labels), "ngrams": classifier.ngrams._asdict()}
    (folder / FACTS_FILE).write_text(json.dumps({**own, **facts}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_linear(folder: Path, facts: Mapping[str, Any], sha256: str) -> LinearClassifier:
    """What `save_linear` wrote, given the content of its JSON file."""
    try:
        held = load_file(folder / WEIGHTS_FILE)
        ngrams = NGrams(**facts["ngrams"])
        return LinearClassifier(held["weight"], held["bias"], tuple(map(str, facts["labels"])), ngrams, sha256)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} holds no linear classifier that can be read: {error!r}") from error
