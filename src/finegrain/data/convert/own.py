"""Finegrain's own forms: prompts, answers, pairs and conversations under plain names."""

from finegrain.data.columns import answer_of, label_of, numeric_columns, text_of
from finegrain.data.conversations import (
    SYSTEM_ROLES,
    PromptAndAnswers,
    answer_turns,
    beside,
    is_conversation,
    opens,
    parse_prompt,
    parse_transcript,
    read_turns,
    split_demonstration,
    split_pair,
    trim,
)
from finegrain.data.convert.build import Prompt, pair_with, said
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Text, Turn

SYSTEM = ("system", "system_prompt")
"""Columns with the text of the system turn."""
ANSWERED = ("completion", "response", "answer", "output")
"""Columns with the one answer to a prompt."""
SIDES = ("chosen", "rejected")


def preference_strings(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} as strings, used unchanged."""
    answers = {role: answer_of(row, role, text_of(row, role), role) for role in SIDES}
    return [Row(prompt=text_of(row, "prompt"), answers=answers, columns=numeric_columns(row))]


def preference_turns(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} where at least one is a conversation, or the row has a system prompt."""
    if row.get("prompt") is None:
        return preference_implicit(row)
    return pair_beside(row, prompt_turns(row, "prompt"))


def preference_implicit(row: Reading) -> list[Row]:
    """{chosen, rejected} as whole conversations; the prompt is their common start."""
    return split_sides(row, *(opened(row, answer_turns(row[role], role)) for role in SIDES))


def hh_rlhf(row: Reading) -> list[Row]:
    """{chosen, rejected} as transcripts "\\n\\nHuman: …\\n\\nAssistant: …"."""
    return split_sides(row, *(opened(row, parse_transcript(text_of(row, role), role)) for role in SIDES))


def hh_beside(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} where the answers are whole transcripts; the prompt is a transcript or the first question."""
    asked = row["prompt"]
    if asked is None:
        return hh_rlhf(row)
    prompt = opened(row, parse_prompt(asked)) if isinstance(asked, str) else prompt_turns(row, "prompt")
    found = beside(prompt, {role: parse_transcript(text_of(row, role), role) for role in SIDES})
    return joined_sides(row, found)


def prompt_turns(row: Reading, column: str) -> Prompt:
    """A prompt as turns, after the system prompt of the row's own system column, if any."""
    value = row[column]
    if isinstance(value, list | tuple) and not value:
        return opened(row, ())
    return opened(row, read_turns(value, column) if is_conversation(value) else (Turn("user", text_of(row, column)),))


def opened(row: Reading, turns: Prompt) -> Prompt:
    """The turns after the text of the column `system`; turns with a system prompt of their own keep it, and the column is not read."""
    if turns and turns[0].role == "system":
        return turns
    name = next((name for name in SYSTEM if name in row), None)
    if name is None or row[name] is None:
        return turns
    text = text_of(row, name)
    return (Turn("system", text), *turns) if text.strip() else turns


def said_turns(row: Reading, column: str) -> Prompt:
    """An answer as turns."""
    return answer_turns(row[column], column) if is_conversation(row[column]) else said(text_of(row, column))


def pair_beside(row: Reading, prompt: Prompt) -> list[Row]:
    """One pair of the answers chosen and rejected after a prompt; where the answers are whole conversations the prompt is not repeated."""
    return joined_sides(row, beside(prompt, {role: said_turns(row, role) for role in SIDES}))


def joined_sides(row: Reading, found: PromptAndAnswers) -> list[Row]:
    """One pair of answers beside a prompt."""
    sides = (found.prompt + turns if found.agrees else turns for turns in found.answers.values())
    return split_sides(row, *sides, agree=found.agrees, given=len(found.prompt) if found.agrees else 0)


def split_sides(row: Reading, chosen: Prompt, rejected: Prompt, *, agree: bool = True, given: int = 0) -> list[Row]:
    """One pair of two whole conversations, whose first `given` turns are the prompt, with the row's numbers, spans and rewards."""
    split = split_pair(chosen, rejected, given)
    answers = {"chosen": answer_of(row, "chosen", split.chosen, "chosen"), "rejected": answer_of(row, "rejected", split.rejected, "rejected")}
    notes = () if split.same_prompt and agree else ("prompt_mismatch",)
    return [Row(prompt=split.prompt, answers=answers, columns=numeric_columns(row), notes=notes)]


def prompt_answer(row: Reading) -> list[Row]:
    """{prompt, completion|response|answer} as strings or conversations; `label`, `spans` and similar columns where present."""
    column = next(name for name in ANSWERED if name in row)
    plain = not is_conversation(row["prompt"]) and not is_conversation(row[column])
    if plain and not has_system(row):
        return [single_of(row, text_of(row, "prompt"), text_of(row, column))]
    whole = row["prompt"] is None and opens(said_turns(row, column))
    return [answer_beside(row, opened(row, ()) if whole else prompt_turns(row, "prompt"), column)]


def has_system(row: Reading) -> bool:
    """Whether the row has a system prompt in a separate column, even an empty one, which makes it a conversation."""
    return any(isinstance(row.source.get(name), str) for name in SYSTEM)


def answer_beside(row: Reading, prompt: Prompt, column: str) -> Row:
    """One answer after a prompt; an answer that is the whole conversation does not repeat it, and is used alone where it begins differently."""
    found = beside(prompt, {column: said_turns(row, column)})
    turns = found.answers[column]
    if not found.agrees:
        return single_of(row, *split_demonstration(turns), notes=("prompt_mismatch",))
    if opens(turns) and all(turn.role in SYSTEM_ROLES for turn in found.prompt):
        return single_of(row, *split_demonstration(found.prompt + turns))
    return single_of(row, found.prompt, trim(turns))


def labelled(row: Reading) -> list[Row]:
    """`prompt_answer` with a label of 0 or 1."""
    label = label_of(row)
    return [pair_with(one, one.answers, {**one.columns, "label": label}) for one in prompt_answer(row)]


def text(row: Reading) -> list[Row]:
    """{text}: the whole text is the answer."""
    return [single_of(row, "", text_of(row, "text"))]


def single_of(row: Reading, prompt: Text, content: Text, notes: tuple[str, ...] = ()) -> Row:
    """One answer, with the row's numbers, spans and rewards."""
    return Row(prompt=prompt, answers={"answer": answer_of(row, "", content, "answer")}, columns=numeric_columns(row), notes=notes)
