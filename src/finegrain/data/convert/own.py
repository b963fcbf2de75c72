"""Finegrain's own forms: prompts, answers, pairs and conversations under plain names."""

from finegrain.data.annotations import read_answer
from finegrain.data.columns import read_label, read_numeric_columns, read_text
from finegrain.data.conversations import (
    SYSTEM_ROLES,
    PromptAndAnswers,
    find_answer_turns,
    is_conversation,
    is_whole_conversation,
    join_prompt_and_answers,
    parse_prompt,
    parse_transcript,
    read_turns,
    split_demonstration,
    split_pair,
    trim,
)
from finegrain.data.convert.build import Prompt, make_assistant_turn, replace_answers
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Text, Turn
from finegrain.errors import DataError

SYSTEM = ("system", "system_prompt")
"""Columns with the text of the system turn."""
ANSWERED = ("completion", "response", "answer", "output")
"""Columns with the one answer to a prompt."""
SIDES = ("chosen", "rejected")


def preference_strings(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} as strings, used unchanged."""
    answers = {role: read_answer(row, role, read_text(row, role), role) for role in SIDES}
    return [Row(prompt=read_text(row, "prompt"), answers=answers, columns=read_numeric_columns(row))]


def preference_turns(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} where at least one is a conversation, or the row has a system prompt."""
    if row.get("prompt") is None:
        return preference_implicit(row)
    return convert_pair(row, read_prompt_turns(row, "prompt"))


def preference_implicit(row: Reading) -> list[Row]:
    """{chosen, rejected} as whole conversations; the prompt is their common start."""
    return split_sides(row, *(add_system(row, find_answer_turns(row[role], role)) for role in SIDES))


def hh_rlhf(row: Reading) -> list[Row]:
    """{chosen, rejected} as transcripts "\\n\\nHuman: …\\n\\nAssistant: …"."""
    return split_sides(row, *(add_system(row, parse_transcript(read_text(row, role), role)) for role in SIDES))


def hh_beside(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} where the answers are whole transcripts; the prompt is a transcript or the first question."""
    asked = row["prompt"]
    if asked is None:
        return hh_rlhf(row)
    prompt = add_system(row, parse_prompt(asked)) if isinstance(asked, str) else read_prompt_turns(row, "prompt")
    found = join_prompt_and_answers(prompt, {role: parse_transcript(read_text(row, role), role) for role in SIDES})
    return join_sides(row, found)


def read_prompt_turns(row: Reading, column: str) -> Prompt:
    """A prompt as turns, after the system prompt of the row's own system column, if any."""
    value = row[column]
    if isinstance(value, list | tuple) and not value:
        return add_system(row, ())
    return add_system(row, read_turns(value, column) if is_conversation(value) else (Turn("user", read_text(row, column)),))


def add_system(row: Reading, turns: Prompt) -> Prompt:
    """The turns after the text of the column `system`; turns with a system prompt of their own keep it, and the column is not read."""
    if turns and turns[0].role == "system":
        return turns
    name = next((name for name in SYSTEM if name in row), None)
    if name is None or row[name] is None:
        return turns
    text = read_text(row, name)
    return (Turn("system", text), *turns) if text.strip() else turns


def read_answer_turns(row: Reading, column: str) -> Prompt:
    """An answer as turns."""
    return find_answer_turns(row[column], column) if is_conversation(row[column]) else make_assistant_turn(read_text(row, column))


def convert_pair(row: Reading, prompt: Prompt) -> list[Row]:
    """One pair of the answers chosen and rejected after a prompt; where the answers are whole conversations the prompt is not repeated."""
    return join_sides(row, join_prompt_and_answers(prompt, {role: read_answer_turns(row, role) for role in SIDES}))


def join_sides(row: Reading, found: PromptAndAnswers) -> list[Row]:
    """One pair of answers beside a prompt."""
    sides = (found.prompt + turns if found.agrees else turns for turns in found.answers.values())
    return split_sides(row, *sides, agree=found.agrees, given=len(found.prompt) if found.agrees else 0)


def split_sides(row: Reading, chosen: Prompt, rejected: Prompt, *, agree: bool = True, given: int = 0) -> list[Row]:
    """One pair of two whole conversations, whose first `given` turns are the prompt, with the row's numbers, spans and rewards."""
    split = split_pair(chosen, rejected, given)
    answers = {"chosen": read_answer(row, "chosen", split.chosen, "chosen"), "rejected": read_answer(row, "rejected", split.rejected, "rejected")}
    notes = () if split.same_prompt and agree else ("prompt_mismatch",)
    return [Row(prompt=split.prompt, answers=answers, columns=read_numeric_columns(row), notes=notes)]


def add_generated(pair: Row, row: Reading) -> Row:
    """The pair with the row's column `generated` as a third answer; raises DataError where the row has none."""
    if "generated" not in row:
        raise DataError("missing column generated: an answer of the model that the round starts from, as `finegrain iterate rounds:selm` writes it")
    if isinstance(pair.prompt, str):
        return replace_answers(
            pair, {**pair.answers, "generated": read_answer(row, "generated", read_text(row, "generated"), "generated")}, pair.columns
        )
    found = join_prompt_and_answers(pair.prompt, {"generated": read_answer_turns(row, "generated")})
    if not found.agrees:
        raise DataError("the conversation in the column generated begins otherwise than the prompt of the row")
    answer = read_answer(row, "generated", found.answers["generated"], "generated")
    return replace_answers(pair, {**pair.answers, "generated": answer}, pair.columns)


def prompt_answer(row: Reading) -> list[Row]:
    """{prompt, completion|response|answer} as strings or conversations; `label`, `spans` and similar columns where present."""
    column = next(name for name in ANSWERED if name in row)
    plain = not is_conversation(row["prompt"]) and not is_conversation(row[column])
    if plain and not has_system(row):
        return [make_single_answer(row, read_text(row, "prompt"), read_text(row, column))]
    whole = row["prompt"] is None and is_whole_conversation(read_answer_turns(row, column))
    return [convert_answer(row, add_system(row, ()) if whole else read_prompt_turns(row, "prompt"), column)]


def has_system(row: Reading) -> bool:
    """Whether the row has a system prompt in a separate column, even an empty one, which makes it a conversation."""
    return any(isinstance(row.source.get(name), str) for name in SYSTEM)


def convert_answer(row: Reading, prompt: Prompt, column: str) -> Row:
    """One answer after a prompt; an answer that is the whole conversation does not repeat it, and is used alone where it begins differently."""
    found = join_prompt_and_answers(prompt, {column: read_answer_turns(row, column)})
    turns = found.answers[column]
    if not found.agrees:
        return make_single_answer(row, *split_demonstration(turns), notes=("prompt_mismatch",))
    if is_whole_conversation(turns) and all(turn.role in SYSTEM_ROLES for turn in found.prompt):
        return make_single_answer(row, *split_demonstration(found.prompt + turns))
    return make_single_answer(row, found.prompt, trim(turns))


def labelled(row: Reading) -> list[Row]:
    """`prompt_answer` with a label of 0 or 1."""
    label = read_label(row)
    return [replace_answers(one, one.answers, {**one.columns, "label": label}) for one in prompt_answer(row)]


def text(row: Reading) -> list[Row]:
    """{text}: the whole text is the answer."""
    return [make_single_answer(row, "", read_text(row, "text"))]


def make_single_answer(row: Reading, prompt: Text, content: Text, notes: tuple[str, ...] = ()) -> Row:
    """One answer, with the row's numbers, spans and rewards."""
    return Row(prompt=prompt, answers={"answer": read_answer(row, "", content, "answer")}, columns=read_numeric_columns(row), notes=notes)
