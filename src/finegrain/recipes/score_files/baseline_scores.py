"""Scores of the baseline's answers by prompt."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from finegrain.commands.baseline import BaselineSettings
from finegrain.commands.settings import Common
from finegrain.data.findings import Findings
from finegrain.data.gate.texts import get_texts
from finegrain.data.load import load_examples
from finegrain.data.questions import Question, Questions
from finegrain.data.read import read
from finegrain.data.records import Example
from finegrain.data.tokenise import Tokenise
from finegrain.data.unlabelled import load_samples, read_sample_rows
from finegrain.errors import DataError
from finegrain.recipes.score_files.baseline_data import Once, are_samples, shape_and_role
from finegrain.recipes.score_files.score_lines import BLOCK, is_cut
from finegrain.scoring.function import Asked, open_function
from finegrain.scoring.identity import function_identity, model_identity
from finegrain.scoring.reward_model import RewardJudge, open_reward_model
from finegrain.scoring.runtime import open_runtime
from finegrain.terminal import write_line
from finegrain.types import Json

ScoredAnswers = Iterator[tuple[str, float]]
"""Prompt as the reward reads it, and the score of an answer to it."""


@dataclass
class Counts:
    """What the result says beside the file."""

    answers: int = 0
    truncated: int = 0
    unscored: int = 0
    """Answers that the user's function returned None for."""
    once: Once = field(default_factory=Once)
    facts: Json = field(default_factory=dict)

    def as_json(self) -> Json:
        """For stdout."""
        seen = {"answers": self.answers, "truncated": self.truncated, "unscored": self.unscored, "repeated": self.once.repeated}
        return {**seen, **self.facts}


def scores_of(settings: BaselineSettings, counts: Counts) -> tuple[Json, dict[str, list[float]]]:
    """The reward's identity, and by prompt its scores of the baseline's answers."""
    if settings.reward is not None:
        identity, scored = function_identity(settings.reward), _by_function(settings, settings.reward, counts)
    else:
        assert settings.model is not None
        common = Common(max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
        judge = open_reward_model(open_runtime(common.device, common.dtype), settings.model, longest=settings.max_length)
        identity, scored = model_identity(judge, settings.max_length), _by_model(settings, judge, counts)
    scores: dict[str, list[float]] = {}
    for prompt, score in scored:
        counts.answers += 1
        scores.setdefault(prompt, []).append(score)
    if not scores:
        raise DataError(f"{settings.data}: no answer was scored ({counts.unscored} were not judged), so there is no baseline")
    return identity, scores


def _by_model(settings: BaselineSettings, judge: RewardJudge, counts: Counts) -> ScoredAnswers:
    how = Tokenise(max_length=settings.max_length)
    if are_samples(settings.data, settings.limit):
        given = load_samples(settings.data, judge.tokenizer, settings=how, fewest=1, limit=settings.limit)
        _tell(given.report, counts)
        yield from _of_samples(given.examples, judge, counts)
        return
    shape, role = shape_and_role(settings.data, settings.limit)
    data = load_examples(settings.data, judge.tokenizer, shape=shape, settings=how, limit=settings.limit)
    _tell(data.report, counts)
    for example, found in zip(data.examples, judge(data.examples, (role,)), strict=True):
        response = example.responses[role]
        if counts.once(example.row, response.text):
            counts.truncated += is_cut(response, judge.tokenizer.eos_token_id)
            yield example.prompt_text, float(found[role].answer.mean)


def _of_samples(examples: Sequence[Example], judge: RewardJudge, counts: Counts) -> ScoredAnswers:
    """In the order of the data; a judge asks for the same roles of all examples, so those with equally many samples go together."""
    found: dict[int, list[float]] = {}
    for count in sorted({len(example.responses) for example in examples}):
        places = [place for place, example in enumerate(examples) if len(example.responses) == count]
        roles = tuple(examples[places[0]].responses)
        for place, one in zip(places, judge([examples[place] for place in places], roles), strict=True):
            found[place] = [float(one[role].answer.mean) for role in roles]
    for place, example in enumerate(examples):
        for response, score in zip(example.responses.values(), found[place], strict=True):
            counts.truncated += is_cut(response, judge.tokenizer.eos_token_id)
            yield example.prompt_text, score


def _by_function(settings: BaselineSettings, path: str, counts: Counts) -> ScoredAnswers:
    """By a function of the user's own."""
    function, stream = open_function(path), _asked_of(settings, counts)
    while block := list(islice(stream, BLOCK)):
        verdicts = function([Asked(one.row, one.made.prompt, one.made.answers[role].content, one.raw) for one, role in block])
        for (one, _), verdict in zip(block, verdicts, strict=True):
            if verdict.score is None:
                counts.unscored += 1
            else:
                yield get_texts(one.made).prompt, verdict.score


def _asked_of(settings: BaselineSettings, counts: Counts) -> Iterator[tuple[Question, str]]:
    """Rows as text, with the role that is asked about."""
    if are_samples(settings.data, settings.limit):
        rows, findings = read(settings.data, settings.limit), Findings()
        for sampled in read_sample_rows(rows, findings, 1):
            yield from ((Question(*sampled), role) for role in sampled[2].answers)
        count = rows.count
    else:
        shape, role = shape_and_role(settings.data, settings.limit)
        questions = Questions(settings.data, settings.limit)
        yield from ((one, role) for one in questions(shape) if counts.once(one.row, one.made.answers[role].content))
        findings, count = questions.findings, questions.rows
    _tell({"rows": count, "findings": findings.as_json(), "messages": findings.messages()}, counts)


def _tell(report: Json, counts: Counts) -> None:
    """What was read and found, to the person and for the result."""
    counts.facts |= {name: report[name] for name in ("rows", "findings")}
    _say(report["messages"])


def _say(messages: Iterable[str]) -> None:
    for message in messages:
        write_line(message)
