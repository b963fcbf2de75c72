"""What the gate checks, and what is done about each kind of finding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finegrain.checked import NonNegativeInt, checked
from finegrain.errors import DataError

Usual = Literal["keep", "drop", "error"]


@dataclass(frozen=True, kw_only=True)
@checked
class Gate:
    """What to do with a row of each kind: keep it, drop it, or stop with an error.

    Every such row is counted in the command's record; training lists them in gate.json.

    One field per kind, so that each kind can be set individually.
    """

    missing_column: Literal["error", "drop"] = "error"
    """A column is missing or has the wrong type."""
    empty: Usual = "drop"
    """A prompt or an answer contains only white space."""
    identical: Usual = "drop"
    """Both answers have the same text."""
    not_a_number: Literal["drop", "error"] = "drop"
    """NaN or infinity in a column, a span or a reward."""
    out_of_range: Literal["drop", "error"] = "drop"
    """A negative weight, deviation or start of a segment, or a probability, `tie`, `flip` or flag of safety outside 0 to 1."""
    prompt_mismatch: Usual = "keep"
    """The prompts of the two sides differ, or an answer that is a whole conversation does not begin with the prompt."""
    tie: Usual = "drop"
    """The data mark neither answer as better; reward losses read the column and keep such pairs, policy objectives do not."""
    harmless_order: Usual = "keep"
    """The chosen answer of the pair is the safer, not the more helpful one (`harmless` 1, `helpful` 0): the second pair of a row of PKU-SafeRLHF."""
    neutral_step: Literal["wrong", "right", "ignore"] = "wrong"
    """A step is labelled neither right nor wrong: count it as wrong, as right, or ignore it."""
    pairs_from: Literal["auto", "pairs", "ranked", "corrections", "references"] = "auto"
    """What pairs are made of, where a format has several: its own pairs, ranked answers, corrections or references; auto: the first."""
    span_outside_text: Literal["clip", "drop", "error"] = "clip"
    """A span extends beyond its text."""
    repeated_answer: Usual = "keep"
    """Two of several ranked answers have the same text and rank; one of them is kept."""
    empty_span: Literal["ignore", "drop", "error"] = "ignore"
    """A span covers no character."""
    overlapping_spans: Usual = "keep"
    """Two spans of one annotator share characters; where they do the later one in the file counts."""
    span_moved: Usual = "keep"
    """The words of a span do not stand at its offsets; it was put where they stand."""
    span_ambiguous: Usual = "keep"
    """The words of a span without offsets stand in its text more than once; the first place was taken."""
    span_not_found: Literal["ignore", "drop", "error"] = "ignore"
    """The words of a span do not stand in its text; the span is left out."""
    duplicate: Usual = "keep"
    """The same example occurred in an earlier row; `drop` drops the later one."""
    contradictory: Usual = "keep"
    """An earlier row has the opposite label for the same texts; `drop` drops the later one."""
    identical_after_truncation: Usual = "drop"
    """Both answers have the same tokens after rendering and truncation."""
    bos_eos: Literal["cut", "drop", "error"] = "cut"
    """A text contains BOS or EOS, or the tokenizer has none; `cut` keeps one."""
    pad_is_eos: Literal["keep", "error"] = "keep"
    """The tokenizer pads with EOS; harmless here, because padding is determined by length."""
    over_length: Literal["cut", "drop", "error"] = "cut"
    """Prompt and answer have more tokens than --max-length."""
    near_identical: Usual = "keep"
    """Heuristic: the answers differ only in a few words, or in case and punctuation."""
    template: Usual = "keep"
    """Heuristic: a text contains markup or turn headers of a chat template."""
    inline_tags: Usual = "keep"
    """Heuristic: an answer has `<v>…</v>`, a person's mark, in a file that is read otherwise: pairs, or no mark in its first 100 rows."""
    encoding: Usual = "keep"
    """Heuristic: text that was decoded with the wrong encoding."""
    prompt_in_answer: Usual = "keep"
    """Heuristic: an answer repeats the prompt."""
    language: Usual = "keep"
    """Heuristic: prompt and answers are in different languages."""
    bias_rows: NonNegativeInt = 1000
    """Number of sampled examples for measuring how well length, words and the answer alone predict the label; 0 skips the measurement."""


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
"""How a finding describes an action."""


Decide = Callable[[str, int | None, str], str]
"""(kind, row number or None for the whole file, description) -> action: drop, keep, clip, cut or error; for a neutral step, how it counts."""


@dataclass(frozen=True)
class Stopping:
    """The gate before training: a finding whose action is `error` raises."""

    gate: Gate = Gate()

    def __call__(self, kind: str, row: int | None, words: str) -> str:
        """The action of the kind."""
        action = get_action(self.gate, kind)
        if action == "error":
            place = "the whole file" if row is None else f"row {row}"
            told = words if kind == "missing_column" else f"{place}: {kind}" + (f" ({words})" if words else "")
            raise DataError(f"{told}; set --gate.{kind.replace('_', '-')} to change what is done about it")
        return action


@dataclass(frozen=True)
class Listing:
    """The gate of check-data: a finding whose action is `error` is listed."""

    gate: Gate = Gate()

    def __call__(self, kind: str, row: int | None, words: str) -> str:
        """The action of the kind."""
        return get_action(self.gate, kind)


def get_action(gate: Gate, kind: str) -> str:
    """The action set for a kind."""
    action: str = getattr(gate, kind)
    return action
