"""What the data package returns: tokenised examples; and what it uses internally: rows of text.

Shape letters: P prompt tokens, T tokens of one answer (its end token included when the answer is complete).
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from finegrain.types import CharSpan, Json

FastTokenizer = Any
"""A fast tokenizer of transformers; Any, so that importing this package does not import transformers."""


class Shape(Enum):
    """The form of the rows that a recipe trains on."""

    PREFERENCE = "preference"
    """Roles chosen and rejected."""
    UNPAIRED = "unpaired"
    """Role answer with the column `label`: 1 good, 0 bad."""
    DEMONSTRATION = "demonstration"
    """Role answer."""
    RATED = "rated"
    """Role answer with a column `rating/<attribute>` for each rated attribute."""
    STEPS = "steps"
    """Role answer; its spans are the labelled steps: 1 right, -1 wrong. An unlabelled step has no span.

    Columns `steps` and `unlabelled_steps` count them.
    """
    RANKED = "ranked"
    """Roles answer-1 ... answer-K, the best first; columns `rank/<role>` (1 is best, equal ranks are a tie) and, where given, `score/<role>`.

    K may differ between rows: a row has the roles and columns of its own answers.
    """
    CORRECTION = "correction"
    """Roles corrected and original, two versions of one answer."""
    EXPLORED = "explored"
    """Roles chosen, rejected and generated: a pair, and an answer of the model that a round starts from, which may be one of the two."""


_COMPARED = frozenset({"chosen", "corrected", "answer-1"})
"""First roles of the shapes whose answers must differ."""


def differing_roles(roles: Collection[str]) -> list[str]:
    """The roles of a row whose answers must differ from one another; a generated answer may be another one of its row."""
    return [role for role in roles if role != "generated"] if _COMPARED & set(roles) else []


Located = tuple[str, Mapping[str, Any]]
"""The location of a row in its source, for messages, and its columns as read."""


@dataclass(frozen=True)
class Response:
    """One tokenised answer."""

    ids: Int32[np.ndarray, " T"]
    """The tokens after the prompt."""
    mask: Bool[np.ndarray, " T"]
    """True on tokens that train: the assistant's text and its end token."""
    offsets: Int32[np.ndarray, "T 2"]
    """Characters start..end-1 of `text`; (0, 0) for a token without characters (EOS, template glue, turns of other roles)."""
    text: str
    """The whole answer, even where its tokens were cut: the text that character spans refer to."""


@dataclass(frozen=True)
class Example:
    """One row of the data, tokenised."""

    row: int
    """Row number in the source, from 0; several examples may come from one row."""
    prompt: Int32[np.ndarray, " P"]
    """At least one token; the same for all answers."""
    prompt_text: str
    """The whole prompt as rendered, even where its tokens were cut."""
    responses: dict[str, Response]
    """By role: chosen and rejected, or answer."""
    columns: dict[str, float]
    """Numbers of the row: label, weight, margin ..."""
    spans: dict[str, list[CharSpan] | None]
    """By role; None: the answer was not annotated; an empty list: annotated, but nothing marked."""
    token_rewards: dict[str, Float32[np.ndarray, " _"] | None]
    """By role, from the data column `<role>_token_reward`, aligned with ids; None: absent."""
    source: str = ""
    """What `prompt_text` and the responses' texts do not tell of the row, so that `data.source_text.read_source_row` can give it back as text."""
    annotators: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By role, everybody who looked at the answer, also those who marked nothing; a role is absent where the data name nobody."""


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    """user, assistant, system or any role in the data."""
    content: str
    """Its text; empty where the data have null."""
    more: str = ""
    """The other keys of the message that hold a value (tool_calls, reasoning_content, weight ...) as JSON sorted by
    name, so that turns can be compared and hashed; empty where there is none. A content of null is kept here too."""

    def others(self) -> Json:
        """The other keys and their values."""
        return json.loads(self.more) if self.more else {}

    def message(self) -> Json:
        """The message as in the data: the form that a chat template and a reward function get."""
        return {"role": self.role, "content": self.content, **self.others()}


Text = str | tuple[Turn, ...]
"""A plain string, used unchanged, or turns, rendered by a template."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as text, with its annotations."""

    content: Text
    """A string where the prompt is a string; turns where the prompt is turns."""
    spans: list[CharSpan] | None = None
    token_reward: list[float] | None = None
    parse: str = ""
    """A bracketed parse, from the data column `<role>_parse`; empty: absent."""
    annotators: tuple[str, ...] = ()
    """Everybody who looked at it, also those who marked nothing; empty where the data name nobody."""
    notes: tuple[tuple[str, str], ...] = ()
    """What was done with its spans while reading: the kind of finding and a description, one for each span."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example as text: the result of every converter."""

    prompt: Text
    answers: dict[str, Answer]
    """By role: chosen and rejected, or answer."""
    columns: dict[str, float] = field(default_factory=dict)
    tools: str = ""
    """The tools that a conversation may call, as JSON text; empty where the data have none."""
    glue: str = ""
    """For strings: the text between prompt and answer; it is tokenised with the answer, but spans do not count it."""
    notes: tuple[str, ...] = ()
    """Findings about the row that do not drop it (`prompt_mismatch`)."""
