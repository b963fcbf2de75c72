"""The rows of a round: a method of rounds asks the model as it is then, and what it makes is a data file that any command reads."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from finegrain.data.answer_text import join_answer
from finegrain.data.records import Answer, Example, Response, Row
from finegrain.data.source_text import read_source_row
from finegrain.data.store import ExampleStore
from finegrain.errors import CheckpointError, DataError
from finegrain.files import replace_file
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.load_errors import one_line
from finegrain.ops.stats import mean_interval
from finegrain.recipes.iteration.sampling import SampleFile
from finegrain.recipes.session import Session
from finegrain.recipes.training.stage_context import RunStage
from finegrain.rounds.context import Drawn, Given, RoundContext, RoundRow
from finegrain.scoring.runtime import Runtime, policy_logps
from finegrain.types import Json

ROWS, MADE = "rows.jsonl", "made.json"
MOST = 64
"""Prompts of the estimate of drift [choice]."""
ROLE = "answer"


@dataclass
class ModelRound:
    """The `RoundContext` of a model: its session holds the model of the start of the round."""

    session: Session
    examples: ExampleStore
    """The prompts of the round, with the data's answers."""
    number: int
    folder: Path
    counted: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    """Prompts without a row, by reason."""
    calls: int = 0
    """For samples."""
    seconds: float = 0.0
    """Of sampling, those of an earlier part of a run that goes on included."""
    first: list[Drawn] = field(default_factory=list)
    """(N,) the first sample of each prompt, where there is one."""

    def given(self, role: str) -> list[str]:
        """The data's answers as the model would write them behind its prompt."""
        return [_given_text(read_source_row(example), role) for example in self.examples]

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[Drawn]]:
        """(N, count) answers; counted."""
        self.calls += 1
        file = self.folder / ("samples.jsonl" if self.calls == 1 else f"samples-{self.calls}.jsonl")
        prompts = [example.prompt for example in self.examples]
        source = SampleFile(file, prompts, count, (self.session.seed, self.number, self.calls))
        drawn, seconds = source.draw(self.session.policy, max_new_tokens=max_new_tokens, temperature=temperature)
        answers = [one for own in drawn for one in own]
        self.seconds += seconds
        self.first = self.first or [own[0] for own in drawn]
        self.note("sampled", len(answers))
        self.note("sampled_tokens", sum(len(one.ids) for one in answers))
        self.note("cut", sum(not one.ended for one in answers))
        self.note("empty", sum(not one.text.strip() for one in answers))
        self.note("read_as_other_tokens", self._count_other_tokens(answers))
        return drawn

    def _count_other_tokens(self, answers: Sequence[Drawn]) -> int:
        """Answers whose text has other tokens than were sampled: they train as their text is read."""
        tokenizer = self.session.policy.tokenizer
        read = tokenizer([one.text for one in answers], add_special_tokens=False)["input_ids"]
        sampled = [list(one.ids[: -1 if one.ended else None]) for one in answers]
        return sum(one != other for one, other in zip(read, sampled, strict=True))

    def score(self, reward: str, answers: Sequence[Sequence[str]]) -> Float[np.ndarray, "N K"]:
        """Rewards, by the stage's own way to them."""
        found = RunStage(self.session, self.examples, trains=True).score(reward, answers)
        return np.stack(list(found.values()), axis=1)

    def leave_out(self, reason: str) -> None:
        """Counts a prompt without a row."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def note(self, name: str, count: int) -> None:
        """Adds to a count."""
        self.counted[name] = self.counted.get(name, 0) + count


def make_rows(method: Callable[[RoundContext], list[RoundRow]], context: ModelRound, start: str) -> Json:
    """Write the rows of a round; returns what was counted of them, and written last. DataError where there is none.

    `start`: the model of the first round, from which the later ones' distance is measured.
    """
    started = time.perf_counter()
    rows = method(context)
    prompts = len(context.examples)
    if not rows:
        told = ", ".join(f"{count} {name}" for name, count in {**context.left_out, **context.counted}.items()).replace("_", " ")
        raise DataError(f"round {context.number} made no row to train on of {prompts} prompts ({told})")
    lines = [json.dumps(_as_json(read_source_row(context.examples[row.place]), row, context), ensure_ascii=False) + "\n" for row in rows]
    replace_file(context.folder / ROWS, "".join(lines))
    facts: Json = {
        "prompts": prompts,
        "rows": len(rows),
        "rows_sha256": _hash_rows(context.folder),
        "left_out": context.left_out,
        **context.counted,
        "sampling_seconds": round(context.seconds, 3),
    }
    if context.number > 1 and context.first:
        facts["drift"] = measure_drift(context.session, start, context.examples, context.first)
    facts["making_seconds"] = round(time.perf_counter() - started, 3)
    replace_file(context.folder / MADE, json.dumps(facts) + "\n")
    return facts


def measure_drift(session: Session, start: str, examples: ExampleStore, answers: Sequence[Drawn]) -> Json:
    """KL(model || start) per answer in nats: the mean of log-ratios of the model's own samples, with its interval.

    Of an answer that was cut it counts the tokens that were sampled. Samples of another temperature than 1 make it another number.
    """
    given = [_answered(example, one) for example, one in zip(examples[:MOST], answers[:MOST], strict=True)]
    runtime = Runtime(session.device, session.precision, None)
    sums = []
    for policy in (session.policy, load_policy(start, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)):
        logps = policy_logps(runtime, policy, given, (ROLE,))[ROLE]
        sums.append(np.array([one.sum(dtype=np.float64) for one in logps]))
    return mean_interval(sums[0] - sums[1]).as_json()


def _answered(example: Example, drawn: Drawn) -> Example:
    """The prompt with the tokens that were sampled."""
    ids = np.array(drawn.ids, dtype=np.int32)
    response = Response(ids, np.ones(len(ids), dtype=bool), np.zeros((len(ids), 2), dtype=np.int32), drawn.text)
    return Example(example.row, example.prompt, example.prompt_text, {ROLE: response}, {}, {ROLE: None}, {ROLE: None})


def read_made(folder: Path) -> Json | None:
    """What was counted of the rows of a round; None before they are made, or where they are gone. CheckpointError where they were changed."""
    file = folder / MADE
    if not file.exists() or not (folder / ROWS).exists():
        return None
    try:
        found: Json = json.loads(file.read_text(encoding="utf-8"))
        sha256, left_out, seconds = found["rows_sha256"], dict(found["left_out"]), float(found["sampling_seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {file}: {one_line(error)}; delete it to make the rows of this round again") from error
    if sha256 != _hash_rows(folder):
        raise CheckpointError(f"{folder / ROWS} is not what the round made; bring it back, or delete it to make it again")
    return {**found, "left_out": left_out, "sampling_seconds": seconds}


def _hash_rows(folder: Path) -> str:
    return hashlib.sha256((folder / ROWS).read_bytes()).hexdigest()


def _as_json(source: Row, row: RoundRow, context: ModelRound) -> Json:
    """A row in the form of its prompt: strings, or messages; from where it comes stands beside."""
    plain = isinstance(source.prompt, str)
    line: Json = {"prompt": source.prompt if isinstance(source.prompt, str) else [turn.message() for turn in source.prompt]}
    if source.tools:
        line["tools"] = source.tools
    for role, given in row.answers.items():
        if isinstance(given, Given):
            content = source.answers[given.role].content
            line[role] = source.glue + content if isinstance(content, str) else [turn.message() for turn in content]
        else:
            line[role] = given if plain else [{"role": "assistant", "content": given}]
    example = context.examples[row.place]
    weight = {"weight": example.columns["weight"]} if "weight" in example.columns else {}
    return {**line, **weight, **row.columns, "round": context.number, "source_row": example.row}


def _given_text(source: Row, role: str) -> str:
    answer: Answer = source.answers[role]
    return source.glue + answer.content if isinstance(answer.content, str) else join_answer(answer.content)
