"""Exact checks on tokens: BOS and EOS that a text writes itself, a tokenizer without EOS, a pad token that is EOS."""

import numpy as np

from finegrain.data.assemble import BatchTokens, Specials
from finegrain.data.findings import Findings
from finegrain.data.gate.settings import DONE, Decide
from finegrain.data.records import FastTokenizer, Row
from finegrain.data.render import Rendered


def check_tokenizer(tokenizer: FastTokenizer, decide: Decide, findings: Findings) -> None:
    """What is wrong with the tokenizer rather than with a row; the finding has no row numbers."""
    if tokenizer.eos_token_id is None:
        words = "the tokenizer has no EOS, so nothing teaches the model to stop"
        findings.add_file("bos_eos", "error" if decide("bos_eos", None, words) == "error" else "kept", words)
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        words = "the tokenizer pads with EOS; padding is known by length here, but other programs may hide EOS with it"
        findings.add_file("pad_is_eos", DONE[decide("pad_is_eos", None, words)], words)


def writes_specials(row: Row, rendered: Rendered, tokens: BatchTokens, specials: Specials) -> str:
    """Which special token the row's own texts hold, in words; "" for none.

    A template may write BOS once at the start; a string may not, because BOS is put before it.
    """
    prompt = tokens.prompt(rendered)
    if specials.bos is not None and len(prompt):
        leading = int(np.argmin(np.append(prompt == specials.bos, False)))
        if leading > int(not isinstance(row.prompt, str)):
            return "the prompt begins with BOS by itself, which is not doubled"
    ours = [number for number in (specials.bos, specials.eos) if number is not None]
    for role, parts in rendered.parts.items():
        for index, part in enumerate(parts):
            if not part.trains:
                continue
            ids = tokens.part(rendered, role, index).ids
            found = np.flatnonzero(np.logical_or.reduce([ids == number for number in ours]))
            if len(found):
                last = int(found[0]) + len(found) == len(ids) and bool((ids[found] == specials.eos).all())
                return "an answer ends with EOS by itself, which is not doubled" if last else "an answer holds BOS or EOS before its end"
    return ""
