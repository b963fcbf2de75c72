"""The strings that the checks read: the prompt and the answers of a row."""

from dataclasses import dataclass

from finegrain.data.answer_text import split_turn
from finegrain.data.conversations import ASSISTANT
from finegrain.data.records import Row, Text


@dataclass(frozen=True)
class Texts:
    """The texts of a row."""

    prompt: str
    """The whole prompt: the contents of its turns, or the string."""
    question: str
    """The last question: the last turn of the user, or the string."""
    answers: dict[str, str]
    """The assistant's text, by role."""
    turns: bool
    """Whether the row is a conversation."""


def get_texts(row: Row) -> Texts:
    """The texts of a row."""
    answers = {role: join_assistant_text(answer.content) for role, answer in row.answers.items()}
    if isinstance(row.prompt, str):
        return Texts(row.prompt, row.prompt, answers, False)
    asked = [turn.content for turn in row.prompt if turn.role == "user"]
    return Texts("\n\n".join(turn.content for turn in row.prompt), asked[-1] if asked else "", answers, True)


def join_assistant_text(content: Text) -> str:
    """The assistant's text."""
    return content if isinstance(content, str) else "\n\n".join(split_turn(turn).text() for turn in content if turn.role == ASSISTANT)
