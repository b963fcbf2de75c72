"""Rows of text to tokenised examples: the same code for every recipe.

Prompt and answers are tokenised as parts, so the prompt's tokens are the same for all answers; the number of answers for which
the whole string gives other tokens is reported. BOS occurs once at the start and EOS once at the end of a complete answer, where
the tokenizer has them, even if the template or the text already writes them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
from jaxtyping import Float32, Int32

from finegrain.data.assemble import BatchTokens, Specials, join_response, start_with_bos
from finegrain.data.differences import count_differences
from finegrain.data.encode import Encoder
from finegrain.data.findings import Findings
from finegrain.data.gate.settings import DONE, Decide, Stopping
from finegrain.data.gate.specials import check_tokenizer, writes_specials
from finegrain.data.records import Answer, Example, FastTokenizer, Response, Row, differing_roles
from finegrain.data.render import Rendered, Renderer, RenderError
from finegrain.data.source_text import write_source
from finegrain.data.text_file import find_invalid_text
from finegrain.data.truncate import Tokenise, apply_limit, cut_response, fit_lengths
from finegrain.data.unread_keys import UnreadKeys
from finegrain.types import CharSpan

__all__ = ["Tokenise", "tokenise"]

ALIKE = "answers are rendered alike without being cut: the chat template leaves out what they differ in"
BATCH = 256
"""Number of rows tokenised at once."""


def tokenise(
    rows: Iterable[tuple[int, Row]], tokenizer: FastTokenizer, settings: Tokenise, findings: Findings, decide: Decide = Stopping()
) -> Iterator[Example]:
    """An example per row that can be trained on; the others are counted in the findings."""
    encoder, specials, render = Encoder(tokenizer), Specials(tokenizer), Renderer(tokenizer)
    unread = UnreadKeys(render.template)
    if (shorter := apply_limit(settings, tokenizer)) is not settings:
        words = f"the model has {shorter.max_length} positions, so rows are cut to {shorter.max_length} tokens instead of {settings.max_length}"
        findings.add_file("max_length", "lowered", words)
        settings = shorter
    check_tokenizer(tokenizer, decide, findings)
    stream = iter(rows)
    while batch := list(islice(stream, BATCH)):
        rendered = [(number, row, strings) for number, row in batch if (strings := _rendered(number, row, render, findings)) is not None]
        for number, row, _ in rendered:
            unread.look(number, row)
        tokens = BatchTokens([strings for _, _, strings in rendered], encoder)
        for number, row, strings in rendered:
            example = _example(number, row, strings, tokens, specials, settings, findings, decide)
            if example is not None:
                yield example
        if rendered:
            count_differences([(number, strings) for number, _, strings in rendered], tokens, encoder, tokenizer, findings)
    unread.report(findings)


def _rendered(number: int, row: Row, render: Renderer, findings: Findings) -> Rendered | None:
    try:
        rendered = render(row)
    except RenderError as error:
        findings.drop(error.kind, number, str(error))
        return None
    # keys of messages and tools may hold invalid text, which tokenizers reject
    if words := next(
        filter(None, map(find_invalid_text, (rendered.prompt, *(part.text for parts in rendered.parts.values() for part in parts)))), ""
    ):
        findings.drop("encoding", number, words)
        return None
    for kind, action, words in rendered.notes:
        findings.add(kind, number, action, words)
    return rendered


def _example(
    number: int, row: Row, rendered: Rendered, tokens: BatchTokens, specials: Specials, settings: Tokenise, findings: Findings, decide: Decide
) -> Example | None:
    prompt = start_with_bos(tokens.prompt(rendered), specials)
    if len(prompt) == 0:
        findings.drop("empty_prompt", number, "the tokenizer has no BOS, so the first token of the answer would have no context")
        return None
    whole = {role: join_response(rendered, role, tokens, specials) for role in row.answers}
    prompt_length, lengths = fit_lengths(len(prompt), [len(response.ids) for response in whole.values()], settings)
    responses = {role: cut_response(response, length) for (role, response), length in zip(whole.items(), lengths, strict=True)}
    found = []
    if prompt_length < len(prompt) or any(len(responses[role].ids) < len(whole[role].ids) for role in whole):
        found.append(("over_length", f"{len(prompt)} + {max(len(response.ids) for response in whole.values())} tokens"))
    if words := writes_specials(row, rendered, tokens, specials):
        found.append(("bos_eos", words))
    differing = differing_roles(responses)
    if len({responses[role].ids.tobytes() for role in differing}) < len(differing):
        found.append(("identical_after_truncation", "" if found and found[0][0] == "over_length" else ALIKE))
    if _dropped(number, found, responses, findings, decide):
        return None
    spans, rewards = {}, {}
    for role, answer in row.answers.items():
        spans[role] = _clipped(answer, rendered.texts[role])
        rewards[role] = _rewards(number, answer, whole[role], len(responses[role].ids), specials, findings)
        if len(responses[role].ids) < len(whole[role].ids):
            findings.add("answer_truncated", number, "cut")
    if prompt_length < len(prompt):
        findings.add("prompt_truncated", number, "cut")
        prompt = _cut_prompt(prompt, prompt_length, specials, settings)
    looked = {role: answer.annotators for role, answer in row.answers.items() if answer.annotators}
    return Example(number, prompt, rendered.prompt, responses, dict(row.columns), spans, rewards, write_source(row), looked)


def _dropped(number: int, found: list[tuple[str, str]], responses: Mapping[str, Response], findings: Findings, decide: Decide) -> bool:
    """Whether a row may not train: nothing of it is left, or a finding about its tokens drops it."""
    if not all(response.mask.any() for response in responses.values()):
        findings.drop("truncated_to_nothing", number)
        for kind, words in found:
            findings.add(kind, number, "dropped", words)
        return True
    dropped = False
    for kind, words in found:
        action = decide(kind, number, words)
        if action == "drop" and not dropped:
            findings.drop(kind, number, words)
            dropped = True
        else:
            findings.add(kind, number, DONE[action], words)
    return dropped


def _cut_prompt(prompt: Int32[np.ndarray, " P"], length: int, specials: Specials, settings: Tokenise) -> Int32[np.ndarray, " Q"]:
    """A prompt of `length` tokens, including BOS."""
    head = prompt[: int(specials.bos is not None)]
    return np.concatenate([head, settings.prompt(prompt[len(head) :], length - len(head))])


def _clipped(answer: Answer, text: str) -> list[CharSpan] | None:
    """The answer's spans inside its text; the gate has reported the others."""
    if answer.spans is None:
        return None
    inside = [span._replace(start=max(span.start, 0), end=min(span.end, len(text))) for span in answer.spans]
    return [span for span in inside if span.start < span.end]


def _rewards(number: int, answer: Answer, whole: Response, length: int, specials: Specials, findings: Findings) -> Float32[np.ndarray, " T"] | None:
    """Token rewards aligned with the (cut) ids; without one for EOS, EOS gets the last token's."""
    if answer.token_reward is None:
        return None
    given, tokens = list(answer.token_reward), len(whole.ids)
    if given and len(given) == tokens - 1 and int(whole.ids[-1]) == specials.eos:
        given.append(given[-1])
    if len(given) != tokens:
        findings.add("token_reward_length", number, "ignored", f"{len(answer.token_reward)} rewards for an answer of {tokens} tokens including EOS")
        return None
    return np.array(given, dtype=np.float32)[:length]
