"""The model card beside a checkpoint: what it is, how it was made, what was measured."""

import json
import re
from pathlib import Path
from typing import Any

import jinja2

from finegrain.configure import FAMILIES
from finegrain.files import replace_file
from finegrain.models.hub_files import public_name
from finegrain.models.reward_models import read_facts
from finegrain.models.reward_tokenizer import CHAT, CHAT_CALL
from finegrain.recipes.training.reward_usage import Usage
from finegrain.run_record import RunRecord
from finegrain.scoring.scale import ENTRY
from finegrain.types import Json

TEMPLATE = """---
library_name: transformers
{% if base %}base_model: {{ base }}
{% endif %}tags:
- finegrain
- {{ command }}
---

# {{ title }}

{{ base or "A model" }} after `finegrain {{ command }}`
{%- for family, name in methods %}, {{ family }} `{{ name }}`{% endfor %}.

| | |
| --- | --- |
| optimiser steps | {{ results.steps }} |
| tokens | {{ results.tokens }} |
| seconds, scorer and reference included | {{ results.train_seconds }} |
| peak learning rate | {{ results.learning_rate }} |
{% for name, value in evaluation %}| {{ name }} | {{ value }} |
{% endfor %}
Load it with `transformers.{{ loader }}.from_pretrained`. `run.json` beside this file holds all settings;
`finegrain again run.json --out OTHER` runs it once more.

{% if usage %}{{ usage }}

## Settings

{% endif -%}
```json
{{ settings }}
```
"""

USE = """## Score an answer

{% if trouble -%}
There is no example here: {{ trouble }}
{% else -%}
{{ fence }}python
{{ code }}
{{ fence }}

{% endif -%}
The ids are {{ pieces }}; the model gives other scores without
{%- if input.bos and input.eos %} BOS in front and EOS behind.{% elif input.eos %} EOS behind.{% else %} them.{% endif %}
{%- if merged %} In this example tokens merge at the border of prompt and answer, which are tokenised apart: `tokenizer(prompt + answer)` gives
other ids, and another score.
{%- elif one_text %} `tokenizer(prompt + answer)` of the tokenizer here writes those of this example;
of others only where no token spans the border of prompt and answer, so let the answer begin with the space.{% endif %}
{%- if input.stock_calls[chat_call] %} Of a conversation, tokenise `tokenizer.apply_chat_template(messages, tokenize=False)` with
`add_special_tokens=False`: the template ends with EOS{% if merged %} (these ids, too, only where no token spans the border){% endif %}.
{%- elif not chat %} Conversations are written as `Human: ...`, a blank line, `Assistant: ...`.{% endif %}
At most {{ input.max_length }} tokens were seen in training; prompts are cut at their start, answers at their end. `config.json` says so in its
entry `finegrain`.{% if scale %} Scores of held-out answers have the mean {{ scale.mean }} and the standard deviation {{ scale.std }}.{% endif %}
`finegrain.reward_function(folder)` makes of this folder a reward function for `GRPOTrainer`.
"""


UNSAFE = re.compile(r"[^\w/. -]")
"""What names of results may not bring into a table: they may come from data."""


def write_card(folder: Path, record: RunRecord, source: str, loader: str, usage: Usage | None = None) -> None:
    """README.md of a checkpoint folder; `usage`: what a saved reward model says of an answer."""
    settings = record.settings or {}
    evaluation = [(UNSAFE.sub("_", name), _shown(value)) for name, value in (record.evaluation or {}).items()]
    text = jinja2.Template(TEMPLATE).render(
        base=None if source == "in memory" else public_name(source),
        title=folder.name,
        command=record.command,
        methods=[(family, (settings[family] or {}).get("method", "custom")) for family in FAMILIES if settings.get(family)],
        results=record,
        loader=loader,
        usage=None if usage is None else _used(usage, read_facts(folder)),
        evaluation=evaluation,
        settings=json.dumps(settings, indent=2, default=str),
    )
    replace_file(folder / "README.md", text)


def _used(usage: Usage, facts: Json) -> str:
    """How the model is used: the example and what its ids are."""
    told = facts["input"]
    code = "" if usage.snippet is None else usage.snippet.code
    return str(
        jinja2.Template(USE).render(
            code=code,
            fence="`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0)),
            trouble=usage.trouble,
            one_text=usage.snippet is not None and usage.snippet.one_text,
            merged=usage.snippet is not None and usage.snippet.merged,
            input=told,
            pieces=told["template"]["text"].replace("bos", "BOS").replace("eos", "EOS"),
            chat=told["template"]["conversation"] == CHAT,
            chat_call=CHAT_CALL,
            scale=facts.get(ENTRY),
        )
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        if value["mean"] is None:
            return str(value["reason"])
        if value["low"] is None or value["high"] is None:
            return f"{value['mean']:.4g} ({value['reason']})"
        return f"{value['mean']:.4g} (95 % interval {value['low']:.4g} to {value['high']:.4g}, {value['rows']} rows)"
    return f"{value:.4g}"
