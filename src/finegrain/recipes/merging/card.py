"""The model card of a merged checkpoint: what it was made of, by which weights, and how they were chosen."""

import json
import re
from pathlib import Path

import jinja2

from finegrain.files import replace_file
from finegrain.models.hub_files import public_name
from finegrain.models.load_errors import one_line
from finegrain.run_record import RunRecord
from finegrain.types import Json

TEMPLATE = """---
library_name: transformers
base_model:
{%- for one in sources %}
- {{ one.name | tojson }}
{%- endfor %}
tags:
- finegrain
- merge
---

# {{ title }}

Made by `finegrain merge`, method `{{ method }}`, without training.

| source | role | weight | SHA-256 |
| --- | --- | --- | --- |
{% for one in sources %}| {{ one.name }} | {{ one.role }} | {{ one.weight }} | `{{ one.sha256 }}` |
{% endfor %}
{{ "%.1f" | format(100 * merged.weights_changed) }} % of the weights differ from those of the first source. Load it with
`transformers.AutoModelForCausalLM.from_pretrained`.
`run.json` beside this file holds all settings; `finegrain again run.json --out OTHER` merges once more.
{% if search %}
## How the strength was chosen

By {{ search.scored_by }}, on {{ rows }} rows: {{ search.strength }} {{ search.best }}.
The rows that chose it give it too good a score; measure it on others.

| {{ search.strength }} | {{ score }} | 95 % interval | against {{ search.start }} |
| --- | --- | --- | --- |
{% for one in lines %}| {{ one.alpha }} | {{ one.mean }} | {{ one.interval }} | {{ one.gap }} |
{% endfor %}{% endif %}
## Settings

```json
{{ settings }}
```
"""


def write_merge_card(folder: Path, title: str, record: RunRecord) -> None:
    """README.md of a merged checkpoint."""
    merged, search = record.merged or {}, record.search
    sources = [
        {**one, "name": _cell(public_name(one["source"])), "weight": f"{one['weight']:.6g}" if "weight" in one else "by tensor"}
        for one in record.sources or []
    ]
    lines, score, rows = [], "", 0
    if search is not None:
        score = next(name for name in search["tried"][0] if name != "alpha")
        rows = search["tried"][0][score]["rows"]
        lines = [
            {"alpha": one["alpha"], "mean": f"{one[score]['mean']:.4g}", "interval": _interval(one[score]), "gap": _signed(one["against_start"])}
            for one in search["tried"]
        ]
        search = {**search, "scored_by": _cell(search["scored_by"])}
    text = jinja2.Template(TEMPLATE).render(
        sources=sources,
        title=_cell(title),
        method=merged["method"]["name"],
        merged=merged,
        search=search,
        score=score,
        rows=rows,
        lines=lines,
        settings=json.dumps(record.settings, indent=2, default=str),
    )
    replace_file(folder / "README.md", text)


def _cell(text: object) -> str:
    """Foreign text in a cell of a table: one line, without what Markdown or HTML would read."""
    return re.sub(r"[^\w/. :,()>-]", "_", one_line(text)).replace(">", "&gt;")


def _interval(found: Json) -> str:
    return "one row" if found["low"] is None else f"{found['low']:.4g} to {found['high']:.4g}"


def _signed(found: Json) -> str:
    return f"{found['mean']:+.4g}" if found["low"] is None else f"{found['mean']:+.4g} ({found['low']:.4g} to {found['high']:.4g})"
