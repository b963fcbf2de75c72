"""`finegrain annotate` called against the stand-in server."""

import json
from pathlib import Path
from typing import Any

from tests.recipes.command import Command, Outcome
from tests.recipes.stand_in import StandIn
from tests.tiny import write_rows

Json = dict[str, Any]
PAIR: Json = {"prompt": "Where? ", "chosen": "In the house by the sea.", "rejected": "In the sky, says the sea."}
ANSWER: Json = {"prompt": "Where? ", "completion": "In the house by the sea."}


class Annotating:
    """The command with a server, in a folder of its own."""

    def __init__(self, command: Command, server: StandIn, folder: Path) -> None:
        self.command, self.server, self.folder = command, server, folder
        self.out = folder / "out.jsonl"

    def __call__(self, rows: list[Json], task: str, *arguments: str | Path) -> Outcome:
        """These rows; files of an earlier call are deleted, and the cache stays."""
        for file in (self.out, self.summary):
            file.unlink(missing_ok=True)
        data = write_rows(self.folder / "rows.jsonl", rows)
        by = [] if "--by" in arguments else ["--by", self.server.url]
        return self.command("annotate", "--data", data, *by, "--task", task, "--out", self.out, *arguments)

    @property
    def summary(self) -> Path:
        return self.out.with_suffix(".summary.json")

    def lines(self) -> list[Json]:
        """The rows that were written."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def checked(self) -> Json:
        """What `finegrain check-data` says of them: shape, and rows by kind of finding."""
        done = self.command("check-data", "--data", self.out)
        assert done.code == 0, done.error
        return {"shape": done.result["shape"], **{finding["kind"]: finding["rows"] for finding in done.result["findings"]}}


def numbered(count: int) -> list[Json]:
    """Single answers with different texts."""
    return [{"prompt": f"{number}? ", "completion": f"It is {number} of all."} for number in range(count)]


def span(quote: str, judgement: str = "bad", aspect: str = "factuality") -> Json:
    """One passage of a reply."""
    return {"quote": quote, "reason": "because", "aspect": aspect, "judgement": judgement}
