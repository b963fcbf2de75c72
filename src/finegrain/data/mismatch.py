"""Answers to other prompts, for objectives that estimate a KL from them (KTO)."""

from collections.abc import Sequence
from dataclasses import replace

from finegrain.data.records import Example
from finegrain.errors import DataError


def with_mismatched(examples: Sequence[Example]) -> list[Example]:
    """Every example with the role `mismatched`: the answer of the next example, in data order, that has another prompt.

    Fixed by the data alone, so that reference values of mismatched answers can be cached across epochs and seeds.
    """
    found = []
    for index, example in enumerate(examples):
        for step in range(1, len(examples)):
            other = examples[(index + step) % len(examples)]
            if other.prompt_text != example.prompt_text:
                break
        else:
            raise DataError("all rows share one prompt, so no answer is a mismatched one; this objective needs several prompts")
        found.append(replace(example, responses={**example.responses, "mismatched": other.responses["answer"]}))
    return found
