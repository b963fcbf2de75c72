"""Reward functions for GSM8K as GRPO scripts have them: each gets the completions and the data's own columns."""

import re

NUMBER = re.compile(r"####\s*(-?[\d,]*\.?\d+)\s*$")


def format_reward(completions: list[str], **kwargs: object) -> list[float]:
    """1 for an answer that ends with `#### n`."""
    return [1.0 if NUMBER.search(text.strip()) else 0.0 for text in completions]


def correctness_reward(completions: list[str], answer: list[str], **kwargs: object) -> list[float]:
    """1 for the data's own number behind ####."""
    return [
        float(last_number(text) == last_number(solution)) if last_number(text) else 0.0 for text, solution in zip(completions, answer, strict=True)
    ]


def last_number(text: str) -> str | None:
    """What stands behind #### at the end, without commas."""
    found = NUMBER.search(text.strip())
    return None if found is None else found[1].replace(",", "").rstrip("0").rstrip(".") if "." in found[1] else found[1].replace(",", "")
