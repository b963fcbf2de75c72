"""Rows of which the prompt alone is read, beside all their columns: what a policy that samples its own answers trains on."""

from collections.abc import Iterator
from itertools import islice

from finegrain.data.convert.own import has_system, read_prompt_turns
from finegrain.data.findings import Findings
from finegrain.data.questions import Question, Questions
from finegrain.data.read import read
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Shape, Turn
from finegrain.errors import DataError

PLACE = "x"
"""Stands for the answer, whose tokens nobody reads."""


class PromptRows(Questions):
    """Prompts of a source: the column `prompt` where the first row has one, as text or messages; else what its format says, e.g. of gsm8k."""

    def __init__(self, source: str, limit: int | None) -> None:
        first = [raw for _, raw in islice(read(source, limit).rows, 1)]
        self._plain = bool(first) and "prompt" in first[0]
        if self._plain:
            self.source, self._limit, self.findings, self.rows = source, limit, Findings(), 0
            return
        try:
            super().__init__(source, limit)
        except DataError as error:
            raise DataError(f'{error}; prompts alone are rows {{"prompt": text or messages}}') from error

    def __call__(self, shape: Shape | None = None) -> Iterator[Question]:
        """In the order of the data."""
        if not self._plain:
            yield from super().__call__(shape)
            return
        self.findings, self.rows = Findings(), 0
        for number, (where, raw) in enumerate(self.raw()):
            self.rows += 1
            try:
                yield Question(number, raw, _read_prompt(Reading(raw)))
            except DataError as error:
                self.findings.drop("unreadable", number, f"{where}: {error}")


def _read_prompt(row: Reading) -> Row:
    if row.get("prompt") is None:
        raise DataError("the row has no prompt")
    prompt = row["prompt"]
    if isinstance(prompt, str) and not has_system(row):
        if not prompt.strip():
            raise DataError("the prompt is empty")
        return Row(prompt=prompt, answers={"answer": Answer(content=PLACE)})
    return Row(prompt=read_prompt_turns(row, "prompt"), answers={"answer": Answer(content=(Turn("assistant", PLACE),))})
