"""Text of models and of data made safe to look at: control characters become visible, so that nothing reorders or hides text.

Escaping for HTML is the template's and the packer's; this is about what a reader sees. Joiners that scripts need (ZWJ, ZWNJ) stay.
"""

import re

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Bidirectional controls, zero-width and other invisible characters, C0 and C1 controls but tab and newline, lone surrogates."""


def visible(text: object) -> str:
    """The text with every hidden character written as its code point."""
    return HIDDEN.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", str(text))


def clipped(text: object, most: int) -> str:
    """Visible text of at most `most` characters, the rest counted."""
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[:most]}… [+{len(shown) - most} characters]"
