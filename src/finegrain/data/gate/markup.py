"""Fragments of chat templates inside texts."""

import re

from finegrain.data.gate.texts import Texts

FAMILIES = {
    "ChatML": r"<\|im_(?:start|end|sep)\|>",
    "Llama 2": r"\[/?INST\]|<</?SYS>>",
    "Llama 3": r"<\|(?:start_header_id|end_header_id|eot_id|begin_of_text|end_of_text|eom_id)\|>",
    "Gemma": r"<(?:start|end)_of_turn>",
    "Zephyr and Phi": r"<\|(?:user|assistant|system|end|endoftext|prompter)\|>",
    "DeepSeek": r"<｜[^｜>]{1,40}｜>",
    "Mistral": r"\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]",
    "OpenChat": r"GPT4 Correct (?:User|Assistant):|<\|end_of_turn\|>",
    "Alpaca": r"^#{2,3} ?(?:Instruction|Response|Input|Human|Assistant|User)\b ?:?",
    "transcript": r"^[ \t*]{0,4}(?:Human|Assistant|USER|ASSISTANT|User|SYSTEM|System)(?: ?\d)?:",
}
"""What the templates write, by family; turn headers count only at the start of a line."""
PATTERNS = {name: re.compile(pattern, re.MULTILINE) for name, pattern in FAMILIES.items()}
ANY = re.compile("|".join(f"(?:{pattern})" for pattern in FAMILIES.values()), re.MULTILINE)
LAST_HEADER = re.compile(r"\n\n(?:Human|User)\s*\Z")
"""A turn of the user that was cut before its colon."""
NEEDED = ("<", "[", "#", ":")
"""Every fragment but the last contains one of these."""


def find_answer_markup(text: str) -> str | None:
    """The first fragment in an answer."""
    if any(mark in text for mark in NEEDED) and (found := ANY.search(text)):
        return found.group().strip()
    if text[-12:].rstrip().endswith(("Human", "User")) and (found := LAST_HEADER.search(text)):
        return found.group().strip()
    return None


def find_families(text: str) -> frozenset[str]:
    """The template families whose fragments a text contains."""
    if not any(mark in text for mark in NEEDED) or not ANY.search(text):
        return frozenset()
    return frozenset(name for name, pattern in PATTERNS.items() if pattern.search(text))


def find_prompt_markup(texts: Texts, own: frozenset[str]) -> list[str]:
    """Families in a prompt that the file's prompts do not contain by design; in a conversation, any family counts."""
    return sorted(find_families(texts.prompt) - (frozenset() if texts.turns else own))


def find_own_markup(prompts: list[str]) -> frozenset[str]:
    """Families that at least half of these prompts contain."""
    found = [find_families(prompt) for prompt in prompts]
    names = frozenset().union(*found)
    return frozenset(name for name in names if 2 * sum(name in one for one in found) >= len(found))
