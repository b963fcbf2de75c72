"""Answers over time as the page's data: a prompt's answers at the first, the middle and the last buffer that sampled it, token by token.

The form is that of `pack.pack_pair`, read by templates/page.js: a card per prompt, an answer per buffer. A prompt that was sampled in one buffer
alone has its answers there side by side.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from finegrain.report.numbers import format_number
from finegrain.report.online import SampledAnswer
from finegrain.report.pack import BUDGET, escape_json, pack_answer, quantise
from finegrain.report.pairs import ExaminedAnswer
from finegrain.report.visible import clip_text
from finegrain.types import Json

ENDS = {"length": "cut at the largest length", "end_token": "ended by an end token", "stop_string": "ended by a stop string"}
NAME = 40
"""Maximum number of characters of a reward's name."""
PLACES_BEFORE = 10
"""Numbers of a card that other pages use, empty here; then follow the changes of gold and of reward, the last buffer and the place here."""
MOST_BESIDE = 4
"""Answers of one buffer that stand side by side."""

History = Sequence[SampledAnswer]
"""Answers to one prompt, by buffer."""


def pack_histories(runs: Sequence[Sequence[SampledAnswer]], budget: int = BUDGET) -> tuple[list[list[Json]], int]:
    """Per run its cards within the budget, and the number left out.

    Prompts of several buffers come first, those whose gold fell most before the others; then those of one buffer, the buffers far apart first.
    """
    packed, left_out = [], 0
    for answers in runs:
        histories = _arrange(collect_histories(answers))
        own: list[Json] = []
        room = budget // max(1, len(runs))
        for place, history in enumerate(histories):
            card = pack_history(history)
            card["k"].append(place)
            room -= len(escape_json(card).encode())
            if room < 0:
                left_out += len(histories) - len(own)
                break
            own.append(card)
        packed.append(own)
    return packed, left_out


def spread(numbers: Sequence[int]) -> list[int]:
    """The last, the first, the middle, then the middles of what lies between, and so on."""
    found = dict.fromkeys([*numbers[-1:], *numbers[:1]])
    parts = [(0, len(numbers) - 1)]
    while parts:
        low, high = parts.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            found[numbers[middle]] = None
            parts += [(low, middle), (middle, high)]
    return list(found)


def collect_histories(answers: Sequence[SampledAnswer]) -> list[History]:
    """Answers to the same prompt of the same row, in the order of buffers and samples."""
    found: dict[tuple[int, str], list[SampledAnswer]] = {}
    for answer in sorted(answers, key=lambda answer: (answer.buffer, answer.sample)):
        found.setdefault((answer.row, answer.prompt), []).append(answer)
    return list(found.values())


def choose_times(history: History) -> list[SampledAnswer]:
    """An answer of the first buffer, of the one nearest to the middle between, and of the last; of a single buffer its first answers."""
    firsts = list({answer.buffer: answer for answer in reversed(history)}.values())[::-1]
    if len(firsts) == 1:
        return list(history[:MOST_BESIDE])
    if len(firsts) == 2:
        return firsts
    middle = (firsts[0].buffer + firsts[-1].buffer) / 2
    return [firsts[0], min(firsts[1:-1], key=lambda answer: abs(answer.buffer - middle)), firsts[-1]]


def pack_history(history: History) -> Json:
    """One card."""
    shown = choose_times(history)
    buffers = len({answer.buffer for answer in history})
    changes = (_change(shown, gold=True), _change(shown, gold=False), float(history[-1].buffer))
    numbers = [None] * PLACES_BEFORE + [_rounded(change) for change in changes]
    tags = [f"{len(shown)} of its {buffers} buffers"] if buffers > len(shown) else []
    return {"r": history[0].row, "h": 0, "p": clip_text(history[0].prompt, 1600), "d": tags, "k": numbers, "a": [_pack(answer) for answer in shown]}


def _pack(answer: SampledAnswer) -> Json:
    """One answer; characters that no token covers, such as a tool's, stand in a token that does not train."""
    places, own = _fill_gaps(answer)
    offsets = np.array(places, dtype=np.int64).reshape(-1, 2)
    shown = ExaminedAnswer(text=answer.text, offsets=offsets, mask=np.array([at >= 0 for at in own], dtype=bool))
    found = pack_answer(f"buffer {answer.buffer}" + (f", sample {answer.sample}" if answer.sample else ""), shown)
    known = {name: values for name, values in answer.signals.items() if np.isfinite(values).any()}
    found["s"] = {name: quantise(np.array([values[at] if at >= 0 else np.nan for at in own])) for name, values in known.items()}
    facts = [[clip_text(name, NAME), format_number(value, signed=True)] for name, value in answer.rewards.items()]
    facts += [[clip_text(f"gold {name}", NAME), format_number(value, signed=True)] for name, value in answer.gold.items()]
    if math.isfinite(answer.advantage):
        facts.append(["advantage", format_number(answer.advantage, signed=True)])
    facts.append(["tokens", str(len(answer.spans))])
    found["f"] = facts
    if answer.ended:
        found["e"] = ENDS.get(answer.ended, clip_text(answer.ended, NAME))
        found["cut"] = int(answer.ended == "length")
    return found


def _fill_gaps(answer: SampledAnswer) -> tuple[list[tuple[int, int]], list[int]]:
    """Character spans that tile the text, and of each the number of its token, -1 where it has none."""
    places: list[tuple[int, int]] = []
    own: list[int] = []
    done = 0
    for number, (start, end) in enumerate(answer.spans):
        if start > done:
            places.append((done, start))
            own.append(-1)
        places.append((max(start, done) if end > done else end, end))
        own.append(number)
        done = max(done, end)
    return places, own


def _change(shown: History, *, gold: bool) -> float:
    """Last minus first buffer, of the gold scores' or the rewards' sum; NaN for answers of one buffer."""
    if shown[0].buffer == shown[-1].buffer:
        return math.nan
    first, last = (sum(answer.gold.values()) if gold and answer.gold else math.nan if gold else answer.reward for answer in (shown[0], shown[-1]))
    return last - first


def _arrange(histories: Sequence[History]) -> list[History]:
    """Prompts of several buffers by what gold lost; then one prompt of each buffer, the buffers spread, then another one of each."""
    several = [history for history in histories if history[0].buffer != history[-1].buffer]
    by_buffer: dict[int, list[History]] = {}
    for history in histories:
        if history[0].buffer == history[-1].buffer:
            by_buffer.setdefault(history[0].buffer, []).append(history)
    turns = [by_buffer[number] for number in spread(sorted(by_buffer))]
    single = [history for together in zip_longest(*turns) for history in together if history is not None]
    return sorted(several, key=lambda history: (_lost(history), history[0].row)) + single


def _lost(history: History) -> float:
    change = _change(choose_times(history), gold=True)
    return change if math.isfinite(change) else 0.0


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
