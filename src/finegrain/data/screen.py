"""What is checked on rows of text before they are tokenised; each check has the name of a finding.

The place for every further check that needs no tokenizer.
"""

import math
from collections.abc import Callable

from finegrain.data.conversations import assistant_says
from finegrain.data.findings import Findings
from finegrain.data.records import Row, Text


def keep(number: int, row: Row, findings: Findings) -> bool:
    """Whether a row may train; what drops it, or is merely worth a note, goes to the findings."""
    for kind, is_so in DROPPING.items():
        if is_so(row):
            findings.add(kind, number, "dropped")
            return False
    for note in row.notes:
        findings.add(note, number, "kept")
    return True


def is_empty(text: Text) -> bool:
    """Whether an answer says nothing but white space."""
    return not text.strip() if isinstance(text, str) else not assistant_says(text)


def _empty(row: Row) -> bool:
    return any(is_empty(answer.content) for answer in row.answers.values())


def _identical(row: Row) -> bool:
    return "rejected" in row.answers and row.answers["chosen"].content == row.answers["rejected"].content


def _not_a_number(row: Row) -> bool:
    numbers = [*row.columns.values()]
    for answer in row.answers.values():
        numbers += [value for _, _, value in answer.spans or ()] + (answer.token_reward or [])
    return not all(map(math.isfinite, numbers))


def _encoding(row: Row) -> bool:
    """Halves of surrogate pairs (from a broken escape in JSON) are no text."""
    for text in (row.prompt, *(answer.content for answer in row.answers.values())):
        try:
            (text if isinstance(text, str) else "".join(turn.content for turn in text)).encode()
        except UnicodeEncodeError:
            return True
    return False


DROPPING: dict[str, Callable[[Row], bool]] = {"encoding": _encoding, "empty": _empty, "identical": _identical, "not_a_number": _not_a_number}
