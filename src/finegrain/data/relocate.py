"""Where a quoted passage stands in a text: annotation tools count in other units, escape characters and change white space.

A quote is compared with the slice its offsets name. Where they differ it is looked for: at the same offsets in UTF-16 units (JavaScript's), then
as it is, nearest to the offset, then without HTML escapes, then with any white space between its words (line ends of Windows, blanks that collapsed).
"""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple


class Passage(NamedTuple):
    """A passage of a text."""

    start: int
    """In code points."""
    end: int
    how: str
    """What had to be done; empty where the offsets were right."""
    others: int = 0
    """Further passages with the same words; counted only where no offset says which one is meant."""


def find_passage(text: str, start: int | None, end: int | None, quote: str) -> Passage | None:
    """The passage that a quote and its offsets (None: there are none) mean; None where the text does not have it."""
    if start is not None and end is not None:
        if 0 <= start < end and text[start:end] == quote:
            return Passage(start, end, "")
        units = _from_utf16(text, start, end)
        if units is not None and text[slice(*units)] == quote:
            return Passage(*units, "its offsets count UTF-16 units")
    unescaped = html.unescape(quote)
    tries = [(quote, False, "found by its words"), (unescaped, False, "found without HTML escapes")]
    tries += [(words, True, "found with other white space") for words in dict.fromkeys((quote, unescaped))]
    for words, loose, how in tries:
        places = list(_places(text, words, loose))
        if places:
            first, last = min(places, key=lambda place: (abs(place[0] - (start or 0)), place[0]))
            return Passage(first, last, how, 0 if start is not None else len(places) - 1)
    return None


def _from_utf16(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Offsets in UTF-16 units as code points; None where the two are the same, or where an offset lies within a character."""
    if text.isascii() or not 0 <= start < end:
        return None
    places: dict[int, int] = {}
    unit = 0
    for place, sign in enumerate(text):
        places[unit] = place
        unit += 2 if ord(sign) > 0xFFFF else 1
    places[unit] = len(text)
    return (places[start], places[end]) if start in places and end in places and unit > len(text) else None


def _places(text: str, words: str, loose: bool) -> Iterator[tuple[int, int]]:
    """Where the words stand; `loose`: with any white space between them, and none around them."""
    parts = words.split() if loose else [words]
    if not any(parts):
        return
    for found in re.finditer(r"\s+".join(map(re.escape, parts)), text):
        yield found.span()
