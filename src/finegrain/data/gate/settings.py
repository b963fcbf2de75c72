"""What the gate looks for, and what is done about each kind of finding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finegrain.checked import NonNegativeInt, checked
from finegrain.errors import DataError

Usual = Literal["keep", "drop", "error"]


@dataclass(frozen=True, kw_only=True)
@checked
class Gate:
    """What is done with a row of each kind: keep it, drop it, or stop with an error. Every row is named in gate.json whatever is done.

    One field per kind, so that every kind can be decided by itself.
    """

    missing_column: Literal["error", "drop"] = "error"
    """A column is missing or has the wrong type."""
    empty: Usual = "drop"
    """A prompt or an answer is white space alone."""
    identical: Usual = "drop"
    """Both answers are the same text."""
    not_a_number: Literal["drop", "error"] = "drop"
    """NaN or infinity in a column, a span or a reward."""
    prompt_mismatch: Usual = "keep"
    """The prompts of the two sides differ, or an answer that is a whole conversation begins otherwise than the prompt."""
    tie: Usual = "drop"
    """The data say that neither answer is better; reward losses read the column and keep such pairs, policy objectives do not."""
    neutral_step: Literal["wrong", "right", "ignore"] = "wrong"
    """A step is labelled neither right nor wrong: it counts as wrong, as right, or not at all."""
    span_outside_text: Literal["clip", "drop", "error"] = "clip"
    """A span reaches beyond its text, or is empty."""
    duplicate: Usual = "keep"
    """The same example stood in an earlier row; `drop` drops the later one."""
    contradictory: Usual = "keep"
    """An earlier row says the opposite about the same texts; `drop` drops the later one."""
    identical_after_truncation: Usual = "drop"
    """Both answers have the same tokens once they are cut."""
    bos_eos: Literal["cut", "drop", "error"] = "cut"
    """A text writes BOS or EOS itself, or the tokenizer has none; `cut` keeps one."""
    pad_is_eos: Literal["keep", "error"] = "keep"
    """The tokenizer pads with EOS; harmless here, where padding is known by length."""
    over_length: Literal["cut", "drop", "error"] = "cut"
    """Prompt and answer have more tokens than --max-length."""
    near_identical: Usual = "keep"
    """Judged: the answers differ in a few words, or in case and punctuation alone."""
    template: Usual = "keep"
    """Judged: markup or turn headers of a chat template inside a text."""
    encoding: Usual = "keep"
    """Judged: text that was decoded with the wrong encoding."""
    prompt_in_answer: Usual = "keep"
    """Judged: an answer repeats the prompt."""
    language: Usual = "keep"
    """Judged: prompt and answers are not in one language."""
    bias_rows: NonNegativeInt = 1000
    """Examples sampled to measure how well length, words and the answer alone predict the label; 0 measures nothing."""


TOKEN_KINDS = ("identical_after_truncation", "bos_eos", "pad_is_eos", "over_length")
"""Kinds that need a tokenizer."""
DONE = {
    "drop": "dropped",
    "keep": "kept",
    "clip": "clipped",
    "cut": "cut",
    "error": "error",
    "wrong": "counted as wrong",
    "right": "counted as right",
    "ignore": "not counted",
}
"""What a finding says of an action."""


Decide = Callable[[str, int | None, str], str]
"""(kind, row number or None for the whole file, words) -> what is done: drop, keep, clip, cut or error; of a neutral step what it counts as."""


@dataclass(frozen=True)
class Stopping:
    """The gate before training: what shall be an error raises."""

    gate: Gate = Gate()

    def __call__(self, kind: str, row: int | None, words: str) -> str:
        """The action of the kind."""
        action = action_of(self.gate, kind)
        if action == "error":
            place = "the whole file" if row is None else f"row {row}"
            told = words if kind == "missing_column" else f"{place}: {kind}" + (f" ({words})" if words else "")
            raise DataError(f"{told}; --gate.{kind.replace('_', '-')} says what is done about it")
        return action


@dataclass(frozen=True)
class Listing:
    """The gate of check-data: what would be an error is listed as one."""

    gate: Gate = Gate()

    def __call__(self, kind: str, row: int | None, words: str) -> str:
        """The action of the kind."""
        return action_of(self.gate, kind)


def action_of(gate: Gate, kind: str) -> str:
    """What is done about a kind."""
    action: str = getattr(gate, kind)
    return action
