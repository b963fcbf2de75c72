"""What a built site would load from elsewhere: `python docs/offline.py FOLDER` prints it and fails if there is any.

Links that a reader may follow are not meant; scripts, styles, fonts, images and frames are.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

AWAY = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
FOLLOWED = {"a": "href", "form": "action"}
NAMED = {"canonical", "author", "license", "next", "prev", "search", "index"}
"""Relations of <link> that say something and load nothing."""


class Loaded(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the addresses of one tag."""
        named = tag == "link" and set((dict(attrs).get("rel") or "").split()) <= NAMED
        for name, value in attrs:
            if name in ("src", "href", "data", "poster", "srcset") and FOLLOWED.get(tag) != name and not named and value and AWAY.match(value):
                self.found.append(value)
            elif name == "style":
                self.found += IN_STYLE.findall(value or "")

    def handle_data(self, data: str) -> None:
        """Styles within the page."""
        if self.cdata_elem == "style":
            self.found += IN_STYLE.findall(data)


def loaded_from_elsewhere(folder: Path) -> list[str]:
    """`file: address` for everything that pages and style sheets below the folder load from another host."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".html":
            page = Loaded()
            page.feed(file.read_text())
            found += [f"{file.relative_to(folder)}: {address}" for address in page.found]
        elif file.suffix == ".css":
            found += [f"{file.relative_to(folder)}: {address}" for address in IN_STYLE.findall(file.read_text())]
    return found


if __name__ == "__main__":
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        sys.exit(f"offline: expected a built site in {site}, found no index.html; run make site")
    if loads := loaded_from_elsewhere(site):
        sys.exit("offline: the site must load nothing from elsewhere; found\n" + "\n".join(loads))
