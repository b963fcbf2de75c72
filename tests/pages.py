"""Code blocks, links and tables of the project's pages."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
SKIP = re.compile(r"<!-- not run: (.+) -->\n\Z")
FILE = re.compile(r"^`([\w/.-]+)`:?\n\n\Z", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Line of the page on which the text starts, from 1."""
    skipped: str | None
    """Why it is not run: the comment before it."""
    file: str | None
    """The file it is the content of: a line with nothing but a path before it."""


def pages() -> list[Path]:
    """README, changelog and everything below docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """Fenced blocks in order; a block inside a longer fence belongs to the outer one."""
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        skipped, file = SKIP.search(before), FILE.search(before)
        line = before.count("\n") + 2
        found.append(Block(match[2], match[3], line, skipped[1] if skipped else None, file[1] if file else None))
    return found


def commands(block: Block) -> list[str]:
    """Commands of a bash block, continuation lines joined, comments gone."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """What `#...` may point at: the headings, as the usual renderers name them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    text = page.read_text()
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            broken.append(target)
    return broken
