"""Text of models and of data in the report: safe to look at, and not too long.

Escaping for HTML is the template's and the packer's; this is about what a reader sees.
"""

from finegrain.terminal import visible


def clipped(text: object, most: int) -> str:
    """Visible text of at most `most` characters, the rest counted."""
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[:most]}… [+{len(shown) - most} characters]"
