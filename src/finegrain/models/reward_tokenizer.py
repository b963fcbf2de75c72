"""The tokenizer saved with a reward model: where possible, a stock call of it gives the tokens that the model was trained on.

Reward models are trained with BOS before the prompt and EOS after a complete answer. A stock call adds at most one of them, so
the saved copy's post-processor adds both, and a chat template that writes text after the end token, or no end token, is changed to end
with it. A call with `add_special_tokens=False` on plain text cannot be corrected in a tokenizer; `stock_calls` records what holds.
"""

import copy
import json
from typing import Any

from jinja2 import TemplateError
from tokenizers import processors

from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row, Turn
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import FinegrainError
from finegrain.types import Json

PAD = "<|reward_pad|>"
"""Appended where every special token could occur at the end of an answer."""

ENDED = (
    "{% set finegrain_text %}{{ '' }}ORIGINAL{{ '' }}{% endset %}"
    "{% if messages and messages[-1].role == 'assistant' and not add_generation_prompt %}"
    "{{ '' if not bos_token or finegrain_text.startswith(bos_token) else bos_token }}"
    "{{ finegrain_text.rstrip() if finegrain_text.rstrip().endswith(eos_token) else finegrain_text + eos_token }}"
    "{% else %}{{ finegrain_text }}{% endif %}"
)
"""A wrapper template: a conversation that ends with the assistant becomes one BOS, what the inner template writes, and EOS at its very end."""

TEXT_CALL, CHAT_CALL = "tokenizer(prompt + answer)", "tokenizer(apply_chat_template(messages), add_special_tokens=False)"
SPACED_CALL = f"{TEXT_CALL}, the answer beginning with the space"
CHAT, PLAIN = "chat_template", "Human: ...\n\nAssistant: ..."
"""How a conversation becomes text."""

SPACED = Row(prompt="Which sea is the largest?", answers={"answer": Answer(content=" The Philippine Sea, they say.")})
SPACE_BEFORE = Row(prompt="Which sea is it? ", answers={"answer": Answer(content="the Philippine Sea, they say.")})
SHORT = Row(prompt=(Turn("user", "Hello?"),), answers={"answer": Answer(content=(Turn("assistant", "the day is good."),))})
LONG = Row(
    prompt=(Turn("user", "Hello?"), Turn("assistant", "Good day."), Turn("user", "And now?")),
    answers={"answer": Answer(content=(Turn("assistant", "is it\nnight?"),))},
)
"""Rows on which stock calls are compared with the training tokens."""


def reward_tokenizer(tokenizer: Any) -> Any:
    """A copy that pads on the right with a token that is not an end token, and whose stock calls give BOS, the text and EOS."""
    made = copy.deepcopy(tokenizer)
    made.padding_side = "right"  # absolute positions start at the first token
    made.truncation_side = "left"  # the text next to the answer is kept
    made.init_kwargs |= {"padding_side": made.padding_side, "truncation_side": made.truncation_side}  # only these are saved
    _pad_apart(made)
    _add_ends(made)
    if isinstance(made.chat_template, str) and made.eos_token and not calls_agree(made, SHORT, LONG):
        before, ours = made.chat_template, [encode_row(made, row) for row in (SHORT, LONG)]
        made.chat_template = ENDED.replace("ORIGINAL", before.removesuffix("\n"))
        if [encode_row(made, row) for row in (SHORT, LONG)] != ours:
            made.chat_template = before
    return made


def describe_input(tokenizer: Any, max_length: int) -> Json:
    """How prompt and answer become ids, for config.json; `tokenizer` is the saved one, as it loads."""
    bos, eos = tokenizer.bos_token_id is not None, tokenizer.eos_token_id is not None
    pieces = [name for name, there in (("bos", bos), ("prompt", True), ("answer", True), ("eos", eos)) if there]
    return {
        "bos": bos,
        "eos": eos,
        "max_length": max_length,
        "truncation_side": {"prompt": "left", "answer": "right"},
        "template": {"text": " + ".join(pieces), "conversation": CHAT if tokenizer.chat_template else PLAIN},
        "stock_calls": {
            TEXT_CALL: calls_agree(tokenizer, SPACED, SPACE_BEFORE),
            SPACED_CALL: calls_agree(tokenizer, SPACED),
            CHAT_CALL: bool(tokenizer.chat_template) and calls_agree(tokenizer, SHORT, LONG),
        },
    }


def calls_agree(tokenizer: Any, *rows: Row) -> bool:
    """Whether stock calls give the training tokens for those rows that a template accepts; False where it accepts none."""
    try:
        ours = [(row, ids) for row in rows if (ids := encode_row(tokenizer, row)) is not None]
        return len(ours) > 0 and all(_stock_ids(tokenizer, row) == ids for row, ids in ours)
    except (FinegrainError, TemplateError, ValueError, TypeError):
        return False


def encode_row(tokenizer: Any, row: Row) -> list[int] | None:
    """Prompt and answer as trained on; None for a row that no template accepts."""
    found = list(tokenise([(0, row)], tokenizer, Tokenise(max_length=1 << 20), Findings()))
    return None if not found else [*found[0].prompt.tolist(), *found[0].responses["answer"].ids.tolist()]


def merges(tokenizer: Any, prompt: str, answer: str) -> bool:
    """Whether a token spans the boundary of prompt and answer where they are tokenised as one text."""
    whole, *parts = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt + answer, prompt, answer))
    return bool(whole != [number for part in parts for number in part])


def _stock_ids(tokenizer: Any, row: Row) -> list[int]:
    answer = row.answers["answer"].content
    if isinstance(row.prompt, str) and isinstance(answer, str):
        found: list[int] = tokenizer(row.prompt + answer)["input_ids"]
        return found
    messages = [{"role": turn.role, "content": turn.content} for turn in (*row.prompt, *answer) if isinstance(turn, Turn)]
    found = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
    return found


def _pad_apart(made: Any) -> None:
    """A pad token that is not an end token: stock pooling looks for the last token that is not padding."""
    if made.pad_token_id is not None and made.pad_token_id != made.eos_token_id:
        return
    if made.bos_token is not None and made.bos_token != made.eos_token:
        made.pad_token = made.bos_token
    else:
        made.add_special_tokens({"pad_token": PAD})


def _add_ends(made: Any) -> None:
    """The post-processor that adds BOS and EOS to a text; its effect on offsets is kept."""
    if not getattr(made, "is_fast", False):
        return
    for name in ("add_bos_token", "add_eos_token"):
        made.init_kwargs.pop(name, None)
    offsets = [_offsets_only(part) for part in _parts(json.loads(made.backend_tokenizer.to_str())["post_processor"])]
    ends = [(token, number) for token, number in ((made.bos_token, made.bos_token_id), (made.eos_token, made.eos_token_id)) if token is not None]
    before = f"{made.bos_token} " if made.bos_token is not None else ""
    after = f" {made.eos_token}" if made.eos_token is not None else ""
    template = processors.TemplateProcessing(single=f"{before}$A{after}", pair=f"{before}$A $B:1{after}", special_tokens=ends)
    made.backend_tokenizer.post_processor = processors.Sequence([*(part for part in offsets if part is not None), template])


def _parts(said: Json | None) -> list[Json]:
    """The steps of a post-processor, from its JSON."""
    if said is None:
        return []
    return [said] if said["type"] != "Sequence" else [one for part in said["processors"] for one in _parts(part)]


def _offsets_only(said: Json) -> Any:
    """The effect of a step on offsets; None for one that only adds tokens."""
    if said["type"] == "ByteLevel":
        return processors.ByteLevel(trim_offsets=said["trim_offsets"], add_prefix_space=said["add_prefix_space"])
    if said["type"] == "RobertaProcessing" and said["trim_offsets"]:
        return processors.ByteLevel(trim_offsets=True, add_prefix_space=said["add_prefix_space"])
    return None
