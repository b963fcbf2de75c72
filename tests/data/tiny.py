"""Tokenizers built in code: byte-level BPE, three sentencepiece-like ones, and chat templates in the usual styles."""

import json
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from finegrain.types import CharSpan

CORPUS = [
    "Human: what is the answer to this question? Assistant: the answer is a good answer, and this is the best of it.",
    "Question: how many apples are there? Answer: there are many apples and one café, naïve words, 12 of them.",
    "hello there, this is a text that says hello to the world again and again.",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITES_BOS_AND_EOS = (
    "<s>{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] | trim }}</s>"
    "{% elif m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
THINKS_LAST = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
WORDS_ONLY = "{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}\n\n{% endfor %}"
LOWERS = "{% for m in messages %}<|im_start|>{{ m['content'] | lower }}<|im_end|>{% endfor %}"

MOVES_THOUGHTS = (
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- set c = m.content or '' -%}{%- set r = '' -%}"
    "{%- if m.reasoning_content is string -%}{%- set r = m.reasoning_content -%}"
    "{%- elif '</think>' in c -%}{%- set r = c.split('</think>')[0].split('<think>')[-1] -%}{%- set c = c.split('</think>')[-1] -%}{%- endif -%}"
    "{{- '<|im_start|>assistant\n' -}}"
    "{%- if loop.index0 > ns.last -%}{{- '<think>\n' + r.strip('\n') + '\n</think>\n\n' -}}{%- endif -%}{{- c.lstrip('\n') -}}"
    "{%- for call in m.tool_calls or [] -%}{%- set f = call.function or call -%}"
    '{{- \'\n<tool_call>\n{"name": "\' + f.name + \'", "arguments": \' -}}'
    "{{- (f.arguments if f.arguments is string else f.arguments | tojson) + '}\n</tool_call>' -}}{%- endfor -%}{{- '<|im_end|>\n' -}}"
    "{%- else -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if tools -%}{{- '' -}}{%- endif -%}"
)
"""As Qwen3's: a thought leaves the content and is written before the last answers, empty where there is none; no generation prompt."""
OPENS_THOUGHTS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{{ (m.content or '').split('</think>')[-1].lstrip() }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""As DeepSeek-R1's: every thought is taken out, and the generation prompt opens one."""
CALLS_ALONE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Llama 3.1's: of a turn that calls a tool only the call is written."""


def _wrap(tokenizer: Tokenizer, bos: bool, eos: bool, template: str | None) -> PreTrainedTokenizerFast:
    special = {**({"bos_token": "<s>"} if bos else {}), **({"eos_token": "</s>"} if eos else {})}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<|im_start|>", "<|im_end|>"], **special)
    wrapped.chat_template = template
    return wrapped


SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


@cache
def _byte_level(lower: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, vocab_size=400, show_progress=False))
    return tokenizer.to_str()


def byte_level(*, bos: bool = True, eos: bool = True, template: str | None = None, lower: bool = False) -> Any:
    """GPT-2's kind: one character may be several tokens."""
    return _wrap(Tokenizer.from_str(_byte_level(lower)), bos, eos, template)


@cache
def _pieces(kind: str) -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    letters = sorted({letter for text in CORPUS for letter in text})
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(special_tokens=special, initial_alphabet=letters, vocab_size=500, max_token_length=8, show_progress=False)
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = [token for token in saved["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(saved)


def pieces(kind: str = "always", *, bos: bool = True, eos: bool = True, template: str | None = None) -> Any:
    """Sentencepiece's kind. `always` and `first`: Metaspace; `prepend`: the normaliser of Llama 2, which doubles a space."""
    return _wrap(Tokenizer.from_str(_pieces(kind)), bos, eos, template)


def marked(*spans: tuple[int, int, float]) -> list[CharSpan]:
    """Spans that say only where and what."""
    return [CharSpan(*span) for span in spans]
