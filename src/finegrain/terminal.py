"""Output to the terminal, written in one place: text from models, data and file names is made safe to display first.

Control characters and bidirectional marks become visible, so that nothing can reorder or hide text, move the cursor or set a
title. Joiners that scripts need (ZWJ, ZWNJ) are kept.
"""

import re
import sys

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Bidirectional controls, zero-width and other invisible characters, C0 and C1 controls but tab and newline, lone surrogates."""


def make_visible(text: object) -> str:
    """The text with every hidden character written as its code point."""
    return HIDDEN.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", str(text))


def write_line(text: object) -> None:
    """Writes one or several lines to stderr."""
    print(make_visible(text), file=sys.stderr, flush=True)
