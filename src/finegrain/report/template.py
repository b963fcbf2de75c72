"""A self-contained page of a template: nothing is fetched, and only its one style sheet and its one script apply."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finegrain.report.pack import escape_json
from finegrain.terminal import make_visible

TEMPLATES = Path(__file__).parent / "templates"
POLICY = "default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"
"""Content security: only the one style sheet and the one script, by their hashes; no frame, font, image, connection or plug-in."""


def render_template(template: str, *, css: Sequence[str], script: Sequence[str], data: object, **values: object) -> str:
    """The page as a string; `css` and `script` are files that are joined, `data` is what the script reads."""
    style, code = ("".join((TEMPLATES / file).read_text() for file in files) for files in (css, script))
    policy = POLICY.format(style=_hash(style), script=_hash(code))
    return (
        _environment().get_template(template).render(policy=policy, css=Markup(style), script=Markup(code), data=Markup(escape_json(data)), **values)
    )


@cache
def _environment() -> Environment:
    """Escapes everything that is not `Markup`, and makes hidden characters visible."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or value is None else make_visible(value),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
