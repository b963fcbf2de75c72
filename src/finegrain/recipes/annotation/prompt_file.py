"""The prompt of a task: a text file with places for the texts, `$answer`, that a user may copy and change."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from finegrain.errors import UsageError

PROMPTS = Path(__file__).parent / "prompts"
MOST_CHARACTERS = 200_000
"""Of a prompt file."""


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt whose places are known."""

    file: Path
    text: str

    @property
    def places(self) -> list[str]:
        """The places that it has."""
        return Template(self.text).get_identifiers()

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt with the texts in their places; what stands in the texts themselves is not read as a place."""
        return Template(self.text).substitute(values)


def load_prompt(file: Path | None, task: str, places: Sequence[str], needed: Sequence[str]) -> PromptTemplate:
    """The file, or the task's own prompt; `places`: what the task fills in, `needed`: those that a prompt must have."""
    path = PROMPTS / f"{task}.txt" if file is None else file
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompt {path}: cannot be read as text ({error})") from error
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"--prompt {path}: has {len(text)} characters, more than {MOST_CHARACTERS}")
    template = Template(text)
    known = ", ".join(f"${name}" for name in places)
    if not template.is_valid():
        raise UsageError(f"--prompt {path}: a $ that begins no place; a dollar sign is written $$ (places of --task {task}: {known})")
    found = template.get_identifiers()
    if unknown := [name for name in found if name not in places]:
        raise UsageError(f"--prompt {path}: ${unknown[0]} is no place of --task {task}, which are {known}; a dollar sign is written $$")
    if lacking := [name for name in needed if name not in found]:
        raise UsageError(f"--prompt {path}: --task {task} needs the place ${lacking[0]}")
    return PromptTemplate(path, re.sub(r"\s+\Z", "\n", text))
