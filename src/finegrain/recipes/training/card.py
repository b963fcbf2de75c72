"""The model card beside a checkpoint: what it is, how it was made, what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from finegrain.configure import FAMILIES

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

```json
{{ settings }}
```
"""


def write_card(folder: Path, command: str, settings: Mapping[str, Any], results: Mapping[str, Any], source: str, loader: str) -> None:
    """README.md of a checkpoint folder."""
    evaluation = [(name, _shown(value)) for name, value in results["evaluation"].items()]
    text = jinja2.Template(TEMPLATE).render(
        base=None if source == "in memory" else Path(source).name,
        title=folder.name,
        command=command,
        methods=[(family, (settings[family] or {}).get("method", "custom")) for family in FAMILIES if settings.get(family)],
        results=results,
        loader=loader,
        evaluation=evaluation,
        settings=json.dumps(settings, indent=2, default=str),
    )
    (folder / "README.md").write_text(text)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        if value["mean"] is None:
            return str(value["reason"])
        if value["low"] is None or value["high"] is None:
            return f"{value['mean']:.4g} ({value['reason']})"
        return f"{value['mean']:.4g} (95 % interval {value['low']:.4g} to {value['high']:.4g}, {value['rows']} rows)"
    return f"{value:.4g}"
