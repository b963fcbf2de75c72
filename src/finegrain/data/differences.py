"""Counts answers that the whole string would have tokenised differently, and answers that do not decode to their text."""

import numpy as np

from finegrain.data.assemble import BatchTokens
from finegrain.data.encode import Encoder
from finegrain.data.findings import Findings
from finegrain.data.records import FastTokenizer
from finegrain.data.render import AnswerPart, Rendered
from finegrain.errors import DataError


def count_differences(batch: list[tuple[int, Rendered]], tokens: BatchTokens, encoder: Encoder, tokenizer: FastTokenizer, findings: Findings) -> None:
    """Counts answers that the whole string would have tokenised differently, and answers that do not decode to their text."""
    answers = [(number, rendered, role) for number, rendered in batch for role in rendered.parts]
    joined = encoder.ids([rendered.prompt + "".join(part.text for part in _spoken(rendered.parts[role])) for _, rendered, role in answers])
    spoken = {
        (rendered.parts[role][index], rendered.prompt == "" and index == 0): tokens.part(rendered, role, index).ids
        for _, rendered, role in answers
        for index in _trained(rendered.parts[role])
    }
    strings = tokenizer.batch_decode(list(spoken.values()), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    decoded = dict(zip(spoken, strings, strict=True))
    for (number, rendered, role), joint in zip(answers, joined, strict=True):
        parts = [tokens.part(rendered, role, index).ids for index in range(len(_spoken(rendered.parts[role])))]
        if joint != np.concatenate([tokens.prompt(rendered), *parts]).tolist():
            findings.add("boundary_differs", number, "kept")
        for index in _trained(rendered.parts[role]):
            part = rendered.parts[role][index]
            shown = decoded[part, rendered.prompt == "" and index == 0]
            if shown not in (part.text, part.text[part.glue :], part.text.removeprefix(" ")):
                if part.text.strip() and len(tokens.part(rendered, role, index).ids) == 0:
                    raise DataError(f"row {number}: the tokenizer gives no token for {part.text[:60]!r}; check that it is the model's tokenizer")
                findings.add("decode_differs", number, "kept", f"{part.text[:60]!r} decodes to {shown[:60]!r}")
                break


def _trained(parts: list[AnswerPart]) -> list[int]:
    return [index for index, part in enumerate(parts) if part.trains]


def _spoken(parts: list[AnswerPart]) -> list[AnswerPart]:
    """The parts without what a template writes after the last answer."""
    return parts[: max(_trained(parts), default=-1) + 1]
