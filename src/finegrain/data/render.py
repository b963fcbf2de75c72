"""Rows as strings: the prompt, and the parts of each answer with what trains and which characters of the answer they contain.

A conversation is rendered by the tokenizer's chat template where it has one, else as "Human: …\\n\\nAssistant: …"; strings are
unchanged. The prompt is one string for all answers of a row, including what the template writes to open the
assistant's turn, wherever the answers continue from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from finegrain.data.answer_text import answer_text, join_answer, split_turn, turn_separator
from finegrain.data.conversations import ASSISTANT, format_header
from finegrain.data.locate import CONTENT, END_THINK, OPEN_THINK, REASON, THOUGHT, Habits, Located, TextRun, find_habits, hide_texts, locate
from finegrain.data.records import FastTokenizer, Row, Text, Turn
from finegrain.data.templates import ChatTemplate, RenderError

__all__ = ["AnswerPart", "RenderError", "Rendered", "Renderer"]

TRAINS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask")
"""Keys of a message that say whether it trains: OpenAI's and LLaMA-Factory's weights, Axolotl's and ms-swift's flags."""

FLAGS = {"false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}

LEFT_OUT = "the chat template removes the reasoning from an earlier turn of the answer, so that turn does not train; make it a separate row"
PUT_BACK = "the chat template removes the reasoning from the answer; it was restored as the model writes it"
NOT_WRITTEN = "the chat template leaves out the text beside a call"


Note = tuple[str, str, str]
"""Kind of a finding, what was done, and a description."""


@dataclass(frozen=True)
class AnswerPart:
    """A piece of an answer that is tokenised separately."""

    text: str
    trains: bool
    runs: tuple[TextRun, ...] = ()
    """The mapping from its characters to those of the answer's text."""
    closes: bool = False
    """Whether it follows a turn that trains, so that its leading special token teaches the end of that turn."""
    ending: bool = False
    """Whether it is what a template writes after the last turn."""

    @property
    def glue(self) -> int:
        """Number of leading characters that are not part of the answer's text (the space after "Assistant:")."""
        return self.runs[0].begin if self.runs else 0


@dataclass(frozen=True)
class Rendered:
    """A row as strings."""

    prompt: str
    parts: dict[str, list[AnswerPart]]
    """By role; where a template ends the answer, its last part is that end and does not train."""
    texts: dict[str, str]
    """By role, the text that character spans refer to."""
    notes: tuple[Note, ...] = ()
    """What the template does to the reasoning of the row, and weights that are not applied."""


class Written(NamedTuple):
    """A conversation rendered by a template."""

    whole: str
    turns: list[Located]
    """The assistant's turns of the answer."""


class Renderer:
    """Renders rows for one tokenizer."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        self.template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
        self._specials = sorted(added.union(tokenizer.all_special_tokens), key=len, reverse=True)
        self._habits: Habits | None = None

    def __call__(self, row: Row) -> Rendered:
        """The strings of a row; raises RenderError."""
        if isinstance(row.prompt, str):
            contents = {role: _string(answer.content) for role, answer in row.answers.items()}
            glue = len(row.glue)
            parts = {role: [AnswerPart(row.glue + content, True, (TextRun(glue, glue + len(content), 0),))] for role, content in contents.items()}
            return Rendered(row.prompt, parts, contents)
        answers = {role: _turns(answer.content) for role, answer in row.answers.items()}
        for turns in answers.values():
            if not any(read_weight(turn) > 0 for turn in turns if turn.role == ASSISTANT):
                raise RenderError("every turn of the assistant is marked not to train", "untrained")
        texts = {role: join_answer(turns) for role, turns in answers.items()}
        weights = [weight for turns in answers.values() for turn in turns if turn.role == ASSISTANT and (weight := read_weight(turn)) not in (0, 1)]
        notes: list[Note] = [("fractional_weight", "kept", f"a turn with weight {weights[0]:g} trains in full")] if weights else []
        if self.template is None:
            prompt, parts = _plain(row.prompt, answers)
        else:
            prompt, parts = self._through(self.template, row.prompt, answers, row.tools, notes)
        return Rendered(prompt, parts, texts, tuple(notes))

    def _through(
        self, template: ChatTemplate, prompt: tuple[Turn, ...], answers: Mapping[str, tuple[Turn, ...]], tools: str, notes: list[Note]
    ) -> tuple[str, dict[str, list[AnswerPart]]]:
        habits = self._habits = self._habits or find_habits(template, self._specials)
        opened = all(turns and turns[0].role == ASSISTANT for turns in answers.values())
        opening = template(prompt, tools, generation=opened) if prompt else ""
        shown: dict[tuple[Turn, ...], str] = {}
        written: dict[str, Written] = {}
        for role, turns in answers.items():
            marked, fields = hide_texts(turns)
            if marked not in shown:
                shown[marked] = template(prompt + marked, tools)
            whole = template(prompt + turns, tools)
            until = lambda turn, turns=turns: template(prompt + turns[: turn + 1], tools)
            found = locate(whole, shown[marked], fields, turns, habits, until)
            if not found:
                raise RenderError(f"the chat template does not write the assistant's text{_keys(turns)}")
            written[role] = _put_back(Written(whole, found), turns, opening, notes)
        opening = _shared(opening, list(written.values()), opened)
        return opening, {role: _parts(written[role], turns, len(opening), habits, notes) for role, turns in answers.items()}


def _shared(opening: str, written: Sequence[Written], opened: bool) -> str:
    """The prompt that all answers continue: the template's own opening, else the text before the answers."""
    ahead = [one.turns[0].begin for one in written if one.turns[0].turn == 0] if opened else []
    if not all(one.whole.startswith(opening) for one in written) or any(begin > len(opening) for begin in ahead):
        opening = written[0].whole[: ahead[0]] if ahead else opening
    if not all(one.whole.startswith(opening) for one in written):
        raise RenderError("the chat template renders the prompt differently before different answers")
    return opening


def read_weight(turn: Turn) -> float:
    """The training weight of a turn: 1 where the data have none."""
    if not turn.more:
        return 1.0
    told = [weight for name, value in turn.others().items() if name in TRAINS and (weight := parse_weight(value)) is not None]
    return min(told, default=1.0)


def parse_weight(value: object) -> float | None:
    """A weight or a flag, also where written as text; None for anything else."""
    if isinstance(value, str):
        try:
            return FLAGS[value.strip().lower()] if value.strip().lower() in FLAGS else float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, bool | int | float) else None


def _string(content: Text) -> str:
    assert isinstance(content, str), "a string prompt goes with string answers"
    return content


def _turns(content: Text) -> tuple[Turn, ...]:
    assert not isinstance(content, str), "a conversation's answers are turns"
    return content


def _keys(turns: Sequence[Turn]) -> str:
    names = sorted({name for turn in turns if turn.role == ASSISTANT for name in turn.others() if name not in TRAINS and name != "content"})
    return f" ({', '.join(names)})" if names else ""


def _plain(prompt: tuple[Turn, ...], answers: Mapping[str, tuple[Turn, ...]]) -> tuple[str, dict[str, list[AnswerPart]]]:
    string = "\n\n".join(f"{format_header(turn.role)} {split_turn(turn).text()}" for turn in prompt)
    opened = all(turns and turns[0].role == ASSISTANT for turns in answers.values())
    if opened:
        string += f"{turn_separator(len(prompt))}{format_header(ASSISTANT)}"
    return string, {role: _plain_parts(turns, len(prompt), opened) for role, turns in answers.items()}


def _plain_parts(turns: tuple[Turn, ...], before: int, opened: bool) -> list[AnswerPart]:
    parts, pending = [], ""
    for i, (turn, start) in enumerate(zip(turns, answer_text(turns)[1], strict=True)):
        said = split_turn(turn).text()
        pending += "" if opened and i == 0 else f"{turn_separator(before + i)}{format_header(turn.role)}"
        if turn.role != ASSISTANT:
            pending += f" {said}"
            continue
        if pending:
            parts.append(AnswerPart(pending, False))
        parts.append(AnswerPart(f" {said}", read_weight(turn) > 0, (TextRun(1, 1 + len(said), start),)))
        pending = ""
    return parts


def _put_back(written: Written, turns: tuple[Turn, ...], opening: str, notes: list[Note]) -> Written:
    """The rendering with the thought of the last turn restored where the template removed it from the content."""
    whole, found = written
    last = found[-1]
    if last.turn != len(turns) - 1 or THOUGHT not in last.missing or last.content is None:
        return written
    content, start = turns[-1].content, answer_text(turns)[1][-1] + len(split_turn(turns[-1]).opening())
    begin = len(content) - len(content.lstrip())
    end = content.rfind(END_THINK) + len(END_THINK)
    visible = content[end:]
    said = content[begin : end + visible.find(whole[slice(*last.content)]) + last.content[1] - last.content[0]]
    thinks = OPEN_THINK.search(opening)
    lead = thinks.group() if thinks and not said.startswith("<think>") else ""
    behind = last.begin + len(lead) + len(said)
    shift = behind - last.content[1]
    moved = [run._replace(begin=run.begin + shift, end=run.end + shift) for run in last.runs if run.begin >= last.content[1]]
    runs = [TextRun(last.begin + len(lead), behind, start + begin), *moved]
    whole = f"{whole[: last.begin]}{lead}{said}{whole[last.content[1] :]}"
    notes.append(("reasoning", "put back", PUT_BACK))
    return Written(whole, [*found[:-1], replace(last, end=last.end + shift, runs=runs, missing=last.missing - {THOUGHT})])


def _parts(written: Written, turns: tuple[Turn, ...], at: int, habits: Habits, notes: list[Note]) -> list[AnswerPart]:
    """What follows the prompt, which is `at` characters long, turn by turn."""
    parts: list[AnswerPart] = []
    closes = False
    for one in written.turns:
        begin = max(one.begin, at)
        if begin > at:
            parts.append(AnswerPart(written.whole[at:begin], False, closes=closes))
        loses = THOUGHT in one.missing or (REASON in one.missing and habits.reasons)
        if loses:
            notes.append(("reasoning", "not trained", LEFT_OUT))
        if CONTENT in one.missing:
            notes.append(("template", "kept", NOT_WRITTEN))
        runs = tuple(
            TextRun(max(run.begin - begin, 0), run.end - begin, run.start + max(begin - run.begin, 0)) for run in one.runs if run.end > begin
        )
        closes = read_weight(turns[one.turn]) > 0 and not loses
        parts.append(AnswerPart(written.whole[begin : one.end], closes, runs))
        at = one.end
    if not any(part.trains for part in parts):
        raise RenderError(LEFT_OUT, "reasoning")
    ends = closes and written.turns[-1].turn == len(turns) - 1
    return [*parts, AnswerPart(written.whole[at:], False, closes=ends, ending=True)]
