"""Our own forms: prompts, answers, pairs and conversations under plain names."""

from finegrain.data.columns import answer_of, label_of, numeric_columns, text_of
from finegrain.data.conversations import is_conversation, parse_transcript, read_turns, split_demonstration, split_pair
from finegrain.data.convert.build import pair_with
from finegrain.data.records import Row, Text, Turn
from finegrain.types import Json


def preference_strings(row: Json) -> list[Row]:
    """{prompt, chosen, rejected} as strings, taken as they are."""
    answers = {role: answer_of(row, role, text_of(row, role), role) for role in ("chosen", "rejected")}
    return [Row(prompt=text_of(row, "prompt"), answers=answers, columns=numeric_columns(row))]


def preference_turns(row: Json) -> list[Row]:
    """{prompt, chosen, rejected} where at least one is a conversation; a prompt repeated at the start of the answers is not doubled."""
    if row.get("prompt") is None:
        return preference_implicit(row)
    prompt = read_turns(row["prompt"], "prompt") if is_conversation(row["prompt"]) else (Turn("user", text_of(row, "prompt")),)
    sides = {}
    for role in ("chosen", "rejected"):
        turns = read_turns(row[role], role) if is_conversation(row[role]) else (Turn("assistant", text_of(row, role)),)
        repeats = turns[: len(prompt)] == prompt or (turns[0].role in ("system", "user") and not is_conversation(row["prompt"]))
        sides[role] = turns if repeats else prompt + turns
    return split_sides(row, sides["chosen"], sides["rejected"])


def preference_implicit(row: Json) -> list[Row]:
    """{chosen, rejected} as whole conversations; the prompt is their common start."""
    return split_sides(row, read_turns(row["chosen"], "chosen"), read_turns(row["rejected"], "rejected"))


def hh_rlhf(row: Json) -> list[Row]:
    """{chosen, rejected} as transcripts "\\n\\nHuman: …\\n\\nAssistant: …"."""
    return split_sides(row, *(parse_transcript(text_of(row, role), role) for role in ("chosen", "rejected")))


def split_sides(row: Json, chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> list[Row]:
    """One pair of two whole conversations, with the numbers, spans and rewards of the row."""
    split = split_pair(chosen, rejected)
    answers = {"chosen": answer_of(row, "chosen", split.chosen, "chosen"), "rejected": answer_of(row, "rejected", split.rejected, "rejected")}
    notes = () if split.same_prompt else ("prompt_mismatch",)
    return [Row(prompt=split.prompt, answers=answers, columns=numeric_columns(row), notes=notes)]


def prompt_answer(row: Json) -> list[Row]:
    """{prompt, completion|response|answer} as strings or conversations; `label`, `spans` and the like where they are there."""
    column = next(name for name in ("completion", "response", "answer") if name in row)
    prompt, content = row["prompt"], row[column]
    if not is_conversation(prompt) and not is_conversation(content):
        return [_single(row, text_of(row, "prompt"), text_of(row, column))]
    turns = read_turns(prompt, "prompt") if is_conversation(prompt) else (Turn("user", text_of(row, "prompt")),)
    reply = read_turns(content, column) if is_conversation(content) else (Turn("assistant", text_of(row, column)),)
    return [_single(row, turns, reply)]


def labelled(row: Json) -> list[Row]:
    """`prompt_answer` with a label of 0 or 1."""
    label = label_of(row)
    return [pair_with(one, one.answers, {**one.columns, "label": label}) for one in prompt_answer(row)]


def messages(row: Json) -> list[Row]:
    """{messages}: the prompt ends before the assistant's first turn."""
    return [_single(row, *split_demonstration(read_turns(row["messages"], "messages")))]


def text(row: Json) -> list[Row]:
    """{text}: everything is the answer."""
    return [_single(row, "", text_of(row, "text"))]


def _single(row: Json, prompt: Text, content: Text) -> Row:
    return Row(prompt=prompt, answers={"answer": answer_of(row, "", content, "answer")}, columns=numeric_columns(row))
