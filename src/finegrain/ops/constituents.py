"""Bracketed parses, `(S (NP a cat) (VP sat))`: where their words stand in a text, and which words form a unit of limited length.

Source: units of parses: Chai et al. 2024 (MA-RLHF), https://arxiv.org/abs/2410.02743, authors' code.
Deviations: a parse is given with the data, where the authors run a parser; words are found in the text, so that any tokenizer will do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from finegrain.errors import DataError

PIECE = re.compile(r"[()]|[^\s()]+")
ESCAPED = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "``": '"', "''": '"'}
"""Words that treebanks write otherwise than the text has them."""


@dataclass(frozen=True)
class Parse:
    """The words of a parse, and its nodes as ranges of words, each before the nodes inside it."""

    words: tuple[str, ...]
    nodes: tuple[tuple[int, int], ...]
    """(first word, word after the last)."""


def read_parse(text: str) -> Parse:
    """One or several trees; the first piece after an opening bracket is a label. Raises DataError where brackets do not match."""
    words: list[str] = []
    nodes: list[tuple[int, int]] = []
    open_nodes: list[int] = []
    label_next = False
    for piece in PIECE.findall(text):
        if piece == "(":
            open_nodes.append(len(nodes))
            nodes.append((len(words), len(words)))
        elif piece == ")":
            if not open_nodes:
                raise DataError(f"a parse closes a bracket that it did not open: {text!r:.80}")
            place = open_nodes.pop()
            nodes[place] = (nodes[place][0], len(words))
        elif not label_next:
            words.append(ESCAPED.get(piece, piece))
        label_next = piece == "("
    if open_nodes:
        raise DataError(f"a parse does not close {len(open_nodes)} of its brackets: {text!r:.80}")
    if not words:
        raise DataError(f"a parse has no word: {text!r:.80}")
    return Parse(tuple(words), tuple(node for node in nodes if node[1] > node[0]))


def find_words(parse: Parse, text: str) -> list[int]:
    """Where each word begins in the text, in characters; raises DataError for a word that is not there in this order."""
    starts, cursor = [], 0
    for word in parse.words:
        start = text.find(word, cursor)
        if start < 0:
            raise DataError(f"the parse has the word {word!r:.40}, which does not follow in the answer after character {cursor}: {text!r:.80}")
        starts.append(start)
        cursor = start + len(word)
    return starts


def group_words(parse: Parse, tokens: Sequence[int], most: int) -> list[int]:
    """The unit of each word: a largest node of fewer than `most` tokens, or a word outside them; a unit of one token joins the one before.

    `tokens`: how many tokens each word has.
    """
    total = [0, *accumulate(tokens)]
    ends = dict[int, int]()
    for first, last in parse.nodes:  # larger nodes come first, so the first that fits is the largest
        if total[last] - total[first] < most and not any(start <= first < end for start, end in ends.items()):
            ends[first] = last
    units, unit, word = [0] * len(tokens), -1, 0
    while word < len(tokens):
        last = ends.get(word, word + 1)
        if unit < 0 or total[last] - total[word] > 1:
            unit += 1
        units[word:last] = [unit] * (last - word)
        word = last
    return units
