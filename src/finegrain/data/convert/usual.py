"""Forms that other libraries write: instructions, conversations with answers, OpenAI's preferences, labelled conversations.

Source: LLaMA-Factory 0.9 (data/README.md), ms-swift 3 (custom dataset), OpenAI's fine-tuning guide, cards of Intel's and Open-Orca's sets.
"""

from dataclasses import replace
from functools import partial

from finegrain.data.columns import read_label, read_list, read_text
from finegrain.data.conversations import (
    ASSISTANT,
    find_answer_turns,
    is_conversation,
    join_prompt_and_answers,
    read_tools,
    read_turns,
    same_turns,
    split_demonstration,
)
from finegrain.data.convert.build import Prompt, make_assistant_turn, replace_answers
from finegrain.data.convert.own import SIDES, add_system, convert_answer, convert_pair, join_sides, make_single_answer, read_answer_turns, split_sides
from finegrain.data.messages import to_messages
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Turn
from finegrain.data.shapes import Convert
from finegrain.errors import DataError

ASKED = ("instruction", "question", "query", "input")
"""Columns that hold the question."""
ADDED = ("input", "context")
"""Columns whose text is appended to an instruction on its own line."""
ANSWERED = ("output", "response", "completion", "answer")
"""Columns that hold the only answer."""
CONVERSED = ("messages", "conversations", "conversation")
"""Columns that hold a conversation."""
LABELS = ("label", "kto_tag")


def read_question(row: Reading) -> Prompt:
    """The system prompt, earlier turns and the question; an instruction includes its input."""
    column = next(name for name in ASKED if name in row)
    *before, last = read_turns(row[column], column) if is_conversation(row[column]) else (Turn("user", read_text(row, column)),)
    more = next((name for name in ADDED if name in row), None) if column == "instruction" else None
    if more is not None and row[more] is not None and (text := read_text(row, more)).strip():
        last = last._replace(content=f"{last.content}\n{text}")
    return add_system(row, (*_history(row), *before, last))


def _history(row: Reading) -> Prompt:
    """Earlier turns as pairs of question and answer."""
    turns: list[Turn] = []
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError(f"column 'history': expected pairs [question, answer], found {pair!r:.80}")
        turns += [Turn("user", pair[0]), Turn(ASSISTANT, pair[1])]
    return tuple(turns)


def instruction_pair(row: Reading) -> list[Row]:
    """{instruction|question|query|input, chosen, rejected}, with input, system and history where present."""
    return convert_pair(row, read_question(row))


def instruction_outputs(row: Reading) -> list[Row]:
    """{instruction, output: [better, worse]}, an older form of LLaMA-Factory's pairs."""
    outputs = read_list(row, "output", str)
    if len(outputs) != len(SIDES):
        raise DataError(f"column 'output': expected a text, or a list of two texts (the better and the worse one), found {len(outputs)}")
    prompt = read_question(row)
    return split_sides(row, *((*prompt, *make_assistant_turn(text)) for text in outputs))


def instruction(row: Reading) -> list[Row]:
    """{instruction|question|query|input, output|response|completion|answer}, with input, system and history where present."""
    return [convert_answer(row, read_question(row), next(name for name in ANSWERED if name in row))]


def labelled_instruction(row: Reading) -> list[Row]:
    """`instruction` with a label or kto_tag of 0 or 1."""
    return _labelled(row, instruction(row))


def _labelled(row: Reading, made: list[Row]) -> list[Row]:
    label = read_label(row, next(name for name in LABELS if name in row))
    return [replace_answers(one, one.answers, {**one.columns, "label": label}) for one in made]


def conversation(column: str) -> Convert:
    """{messages}: the prompt ends before the assistant's first turn."""
    return partial(_conversation, column)


def _conversation(column: str, row: Reading) -> list[Row]:
    return [make_single_answer(row, *split_demonstration(add_system(row, find_answer_turns(row[column], column))))]


def labelled_conversation(column: str) -> Convert:
    """{messages, label|kto_tag}."""
    return lambda row: _labelled(row, _conversation(column, row))


def conversation_pair(column: str) -> Convert:
    """{messages, chosen, rejected}: the conversation up to the answers, or the whole chosen conversation."""
    return partial(_conversation_pair, column)


def _conversation_pair(column: str, row: Reading) -> list[Row]:
    prompt = add_system(row, read_turns(row[column], column))
    sides = {role: read_answer_turns(row, role) for role in SIDES}
    told = next((i + 1 for i in range(len(prompt) - 1, -1, -1) if prompt[i].role != ASSISTANT), 0)
    if told < len(prompt) and (same_turns(prompt[told:], sides["chosen"]) or any(turns[0].role != ASSISTANT for turns in sides.values())):
        prompt = prompt[:told]
    return join_sides(row, join_prompt_and_answers(prompt, sides))


def rejected_beside(row: Reading) -> list[Row]:
    """{messages, rejected_response}: the conversation's last turn is the chosen answer (ms-swift)."""
    turns = add_system(row, find_answer_turns(row["messages"], "messages"))
    if turns[-1].role != ASSISTANT:
        raise DataError(f"column 'messages': expected a last turn of role {ASSISTANT} beside rejected_response, found {turns[-1].role!r:.40}")
    return split_sides(row, turns, (*turns[:-1], *read_answer_turns(row, "rejected_response")))


def openai_preference(row: Reading) -> list[Row]:
    """{input: {messages, tools}, preferred_output, non_preferred_output}."""
    given = row["input"]
    messages = to_messages(given.get("messages")) if isinstance(given, dict) else None
    if messages is None:
        raise DataError("column 'input': expected an object with a list of messages under messages")
    answers = {"chosen": read_answer_turns(row, "preferred_output"), "rejected": read_answer_turns(row, "non_preferred_output")}
    made = join_sides(row, join_prompt_and_answers(add_system(row, read_turns(messages, "input")), answers))
    tools = read_tools(given.get("tools"))
    return [replace(one, tools=tools) for one in made]
