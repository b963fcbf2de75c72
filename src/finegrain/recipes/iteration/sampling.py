"""Answers of a model to many prompts, written as they come, so that a stopped run goes on from those it has."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finegrain.errors import Interrupted
from finegrain.files import replace_file
from finegrain.generate.hf import end_tokens, sample_answers
from finegrain.models.load import Policy
from finegrain.models.scorer import causal_lm
from finegrain.recipes.progress import show_progress
from finegrain.rounds.context import Drawn
from finegrain.types import Json

AT_ONCE = 32
"""Prompts that are answered in one batch: it has one seed, so the answers depend on it."""


@dataclass(frozen=True)
class SampleFile:
    """The answers of one call for samples: a line of JSON for every batch, in the order in which they are drawn."""

    path: Path
    prompts: Sequence[np.ndarray]
    """Tokens."""
    count: int
    """Answers per prompt."""
    seed: tuple[int, ...]
    """Of the run, the round and the call; every batch has one of its own below it."""

    def draw(self, policy: Policy, *, max_new_tokens: int, temperature: float) -> tuple[list[list[Drawn]], float]:
        """(N, count) answers, and the seconds that all of them took: complete lines are read, the rest is sampled."""
        lines, wanted = self._kept(policy), list(self._batches())
        replace_file(self.path, "".join(map(_as_line, lines)))  # without a line that a kill left half-written
        done = sum(len(line["answers"]) for line in lines)
        with self.path.open("a", encoding="utf-8") as stream, show_progress("sample", "sampled", len(self.prompts) * self.count) as tell:
            for number, first in wanted[len(lines) :]:
                try:
                    line = self._sample(policy, number, first, max_new_tokens, temperature)
                except KeyboardInterrupt:
                    raise Interrupted(f"stopped while sampling; {done} of {len(self.prompts) * self.count} answers are kept") from None
                stream.write(_as_line(line))
                stream.flush()
                lines.append(line)
                done += len(line["answers"])
                tell(done, "answers")
        drawn: list[list[Drawn]] = [[] for _ in self.prompts]
        for line in lines:
            for place, answer in enumerate(line["answers"], start=line["first"]):
                drawn[place].append(Drawn(*answer))
        return drawn, sum(line["seconds"] for line in lines)

    def _batches(self) -> Iterator[tuple[int, int]]:
        """(number of the answer, place of the first prompt)."""
        return ((number, first) for number in range(self.count) for first in range(0, len(self.prompts), AT_ONCE))

    def _kept(self, policy: Policy) -> list[Json]:
        """Complete lines up to the first one that is half-written, edited or not of its place; what follows is drawn again."""
        if not self.path.exists():
            return []
        found: list[Json] = []
        for text, (number, first) in zip(self.path.read_text(encoding="utf-8", errors="replace").split("\n"), self._batches(), strict=False):
            try:
                line = json.loads(text)
                whole = (line["sample"], line["first"], len(line["answers"])) == (number, first, len(self.prompts[first : first + AT_ONCE]))
                whole = whole and line["seconds"] >= 0 and all(_is_answer(policy, *answer) for answer in line["answers"])
            except (ValueError, KeyError, TypeError, OverflowError):
                break
            if not whole:
                break
            found.append(line)
        return found

    def _sample(self, policy: Policy, number: int, first: int, max_new_tokens: int, temperature: float) -> Json:
        started, tokenizer = time.perf_counter(), policy.tokenizer
        seed = int(np.random.SeedSequence([*self.seed, number, first]).generate_state(1)[0])
        part = self.prompts[first : first + AT_ONCE]
        found = sample_answers(policy.model, tokenizer, part, max_new_tokens=max_new_tokens, seed=seed, temperature=temperature)
        ends = end_tokens(policy.model, tokenizer)
        answers = [Drawn(_decode(policy, ids.tolist()), ids.tolist(), bool(len(ids)) and int(ids[-1]) in ends) for ids in found]
        return {"sample": number, "first": first, "seconds": round(time.perf_counter() - started, 3), "answers": answers}


def _decode(policy: Policy, ids: list[int]) -> str:
    found: str = policy.tokenizer.decode(ids, skip_special_tokens=True)
    return found


def _is_answer(policy: Policy, text: str, ids: list[int], ended: bool) -> bool:
    """Whether an answer of the file is one: tokens of the model, their text, and whether it ended."""
    known = causal_lm(policy.model).get_input_embeddings().num_embeddings
    return isinstance(ended, bool) and bool(ids) and all(0 <= token < known for token in ids) and _decode(policy, ids) == text


def _as_line(line: Json) -> str:
    return json.dumps(line) + "\n"
