"""Text from models and data in the report: safe to display, and not too long.

The template and the packer escape it for HTML; this makes hidden characters visible.
"""

from finegrain.terminal import make_visible


def clip_text(text: object, most: int) -> str:
    """Visible text of at most `most` characters, with the number of the others."""
    shown = make_visible(text)
    return shown if len(shown) <= most else f"{shown[:most]}… [+{len(shown) - most} characters]"
