"""The site: the pages of this folder as HTML that needs no network. `make site` builds it, with warnings as errors.

Navigation and the table of methods are added while the start page is read, so that the pages themselves stay plain Markdown.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

from finegrain import __version__
from finegrain.catalog import METHODS

HERE = Path(__file__).parent

project = "finegrain"
release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_enable_extensions = ["linkify"]
myst_linkify_fuzzy_links = False
highlight_language = "none"
html_theme = "furo"
html_title = "finegrain"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"


def navigation(text: str) -> str:
    """The sidebar: guides in the order in which the start page links them, then reference pages and what lies in the other two folders."""
    guides = dict.fromkeys(re.findall(r"^- \[[^\]]+\]\((guides/[\w-]+)\.md\)", text, re.MULTILINE))
    parts = {
        "Guides": list(guides),
        "Reference": ["notation", "architecture", "beside-other-libraries"],
        "Methods": pages_of("methods"),
        "Decisions": pages_of("decisions"),
    }
    trees = []
    for caption, pages in parts.items():
        trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"]))
    return "\n\n".join(trees)


def pages_of(folder: str) -> list[str]:
    """Pages of a folder by name."""
    return sorted(f"{folder}/{page.stem}" for page in (HERE / folder).glob("*.md"))


def methods() -> str:
    """One row per method of the catalog; a method without a page is a broken link, so it stops the build."""
    rows = [f"| [{method.name}](methods/{method.name}.md) | {method.family} | {method.summary} |" for method in METHODS]
    return "\n".join(["| method | kind | what it does |", "| --- | --- | --- |", *rows])


def complete(_: Sphinx, page: str, source: list[str]) -> None:
    """Give the start page what only the site has."""
    if page == "index":
        text = source[0].replace("](../README.md#methods)", "](#methods)")
        text = text.replace("\n## Decisions\n", f"\n{methods()}\n\n## Decisions\n")
        source[0] = f"{text}\n\n{navigation(text)}\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", complete)
