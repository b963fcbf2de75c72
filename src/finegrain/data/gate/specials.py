"""Exact checks on tokens: BOS and EOS inside a text, a tokenizer without EOS, a pad token equal to EOS."""

import numpy as np

from finegrain.data.assemble import BatchTokens, Specials
from finegrain.data.findings import Findings
from finegrain.data.gate.settings import DONE, Decide
from finegrain.data.records import FastTokenizer, Row
from finegrain.data.render import Rendered


def check_tokenizer(tokenizer: FastTokenizer, decide: Decide, findings: Findings) -> None:
    """Reports problems of the tokenizer rather than of a row; these findings have no row numbers."""
    if tokenizer.eos_token_id is None:
        words = "the tokenizer has no EOS, so the model does not learn to stop"
        findings.add_file("bos_eos", "error" if decide("bos_eos", None, words) == "error" else "kept", words)
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        words = "the tokenizer pads with EOS; here padding is determined by length, but other programs may mask EOS as padding"
        findings.add_file("pad_is_eos", DONE[decide("pad_is_eos", None, words)], words)


def writes_specials(row: Row, rendered: Rendered, tokens: BatchTokens, specials: Specials) -> str:
    """Describes the special token in the row's own texts; "" for none.

    A template may write BOS once at the start; a string may not, because BOS is added before it.
    """
    prompt = tokens.prompt(rendered)
    if specials.bos is not None and len(prompt):
        leading = int(np.argmin(np.append(prompt == specials.bos, False)))
        if leading > int(not isinstance(row.prompt, str)):
            return "the prompt already begins with BOS, so none is added"
    ours = [number for number in (specials.bos, specials.eos) if number is not None]
    for role, parts in rendered.parts.items():
        for index, part in enumerate(parts):
            if not part.trains:
                continue
            ids = tokens.part(rendered, role, index).ids
            found = np.flatnonzero(np.logical_or.reduce([ids == number for number in ours]))
            if len(found):
                last = int(found[0]) + len(found) == len(ids) and bool((ids[found] == specials.eos).all())
                return "an answer already ends with EOS, so none is added" if last else "an answer contains BOS or EOS before its end"
    return ""
