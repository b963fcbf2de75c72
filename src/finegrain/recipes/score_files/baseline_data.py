"""Which answers of a data set are a baseline: samples, the chosen answers of pairs, demonstrations."""

from itertools import islice

from finegrain.data.gate.keeper import FIRST_ROWS, find_common_format
from finegrain.data.read import read
from finegrain.data.records import Shape, Text
from finegrain.data.shapes import find_own_shape
from finegrain.data.unlabelled import has_samples
from finegrain.errors import UsageError

ROLES = {Shape.PREFERENCE: "chosen", Shape.DEMONSTRATION: "answer"}


def are_samples(source: str, limit: int | None) -> bool:
    """Whether the rows are {prompt, responses}."""
    return any(has_samples(raw) for _, raw in islice(read(source, limit).rows, FIRST_ROWS))


def shape_and_role(source: str, limit: int | None) -> tuple[Shape, str]:
    """What rows of another format serve, and the role in them that is the baseline."""
    shape = find_own_shape(find_common_format(list(islice(read(source, limit).rows, FIRST_ROWS))))
    if shape not in ROLES:
        raise UsageError(
            f"{source} holds {shape.value} rows, whose answers are good and bad alike; "
            "a baseline is of samples {prompt, responses}, of pairs (the chosen answer) or of demonstrations"
        )
    return shape, ROLES[shape]


class Once:
    """Tells a row's first example of an answer from later ones: one answer may be chosen in several pairs of its row. Rows come in order."""

    def __init__(self) -> None:
        self._row = -1
        self._seen: set[Text] = set()
        self.repeated = 0

    def __call__(self, row: int, answer: Text) -> bool:
        """Whether the answer is new in its row."""
        if row != self._row:
            self._row, self._seen = row, set()
        new = answer not in self._seen
        self._seen.add(answer)
        self.repeated += not new
        return new
