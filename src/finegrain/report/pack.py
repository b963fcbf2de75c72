"""Examined pairs as the page's data: token arrays quantised to two characters per value, so that 200 pairs fit into a page.

Decoded by `decode` in templates/page.js. A value is off by at most half a step; a step is the answer's range over 4094.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np

from finegrain.data.annotators import group_spans
from finegrain.data.spans import spans_to_tokens
from finegrain.report.marks import pair_disagreement
from finegrain.report.pairs import ExaminedAnswer, ExaminedPair
from finegrain.report.visible import clip_text
from finegrain.terminal import make_visible
from finegrain.types import CharSpan, Json

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEVELS = len(DIGITS) ** 2 - 2
MISSING = LEVELS + 1
"""Marks a value that is not finite."""
PIECE = 200
"""Maximum number of characters shown of one token."""
BUDGET = 1_500_000
"""Maximum number of bytes of pairs in one page."""


def pack_pairs(runs: Sequence[Sequence[ExaminedPair]], budget: int = BUDGET) -> tuple[list[list[Json]], int]:
    """Per run, its pairs in their order within the budget, and the number left out; runs share it evenly."""
    packed, left_out = [], 0
    for pairs in runs:
        own: list[Json] = []
        room = budget // max(1, len(runs))
        for pair in sorted(pairs, key=worst_first):
            entry = pack_pair(pair)
            room -= len(escape_json(entry).encode())
            if room < 0:
                left_out += len(pairs) - len(own)
                break
            own.append(entry)
        packed.append(own)
    return packed, left_out


def worst_first(pair: ExaminedPair) -> float:
    """Sort key: the chosen (or only) answer's change, largest fall first; for a reward model its most confident mistake first; unknown ones last."""
    change = pair.change("chosen" if "chosen" in pair.answers else next(iter(pair.answers), ""))
    worth = change if np.isfinite(change) else pair.reward_margin
    return worth if np.isfinite(worth) else np.inf


def pack_pair(pair: ExaminedPair) -> Json:
    """One pair with short keys."""
    label: Json = {} if pair.label is None else {"y": pair.label}
    if pair.tie:
        label["e"] = 1
    numbers = [pair.margin, *(pair.change(role) for role in ("chosen", "rejected", "answer")), pair_disagreement(pair)]
    numbers += [pair.reward_margin, pair.reward_margin_std, *(_score(pair, role) for role in ("chosen", "rejected", "answer"))]
    answers = [pack_answer(role, answer) for role, answer in pair.answers.items()]
    facts = {"r": pair.row, "h": int(pair.held_out), "p": clip_text(pair.prompt, 1600), **label}
    return {**facts, "k": [_rounded(value) for value in numbers], "a": answers}


def pack_answer(role: str, answer: ExaminedAnswer) -> Json:
    """One answer: text and its token boundaries, then only the available signals."""
    shown = split_tokens(answer)
    text, tail = "".join(shown[:-1]), shown[-1]
    signals = {"ratio": answer.ratio, "after": answer.after, "before": answer.before if answer.after is None else None}
    signals |= {"weight": answer.weight, "segment": answer.segment_score, "reward": answer.reward, "std": answer.reward_std}
    signals |= {"pull": None if answer.pull is None else 100 * answer.pull}
    found: Json = {"n": clip_text(role, 60), "t": text, "w": "".join(_length(_units(piece)) for piece in shown[:-1])}
    if tail:
        found["x"] = clip_text(tail, 2000)
    if not answer.mask.all():
        found["m"] = "".join("1" if on else "0" for on in answer.mask)
    found["s"] = {name: quantise(values) for name, values in signals.items() if values is not None}
    if answer.segment is not None:
        found["g"] = "".join("1" if place and number != answer.segment[place - 1] else "0" for place, number in enumerate(answer.segment))
    for key, marks in (("u", answer.spans), ("q", answer.truth)):
        if marks is not None:
            found[key] = token_runs(marks, answer.offsets, answer.annotators if key == "u" else ())
    if said := span_words(answer.spans or (), answer.offsets):
        found["l"] = said
    return found


def split_tokens(answer: ExaminedAnswer) -> list[str]:
    """The displayed text of each token, and finally the text after the last one; concatenated they are the whole text.

    A token without characters has an empty string here (the page shows a sign); text between tokens belongs to the later one.
    """
    found, done = [], 0
    for start, end in answer.offsets.tolist():
        if end <= start or end <= done:
            found.append("")
            continue
        found.append(clip_text(answer.text[done:end], PIECE))
        done = end
    return [*found, make_visible(answer.text[done:])]


def token_runs(spans: Sequence[CharSpan], offsets: np.ndarray, annotators: Sequence[str] = ()) -> list[tuple[int, int, float]]:
    """Spans as [first token, last token, value], by the rule of `data.spans`; of several annotators the mean, 0 for those who did not mark it."""
    own = [spans_to_tokens(group, offsets, outside=float("nan")) for group in group_spans(spans, annotators).values()]
    marked = ~np.isnan(own).all(axis=0)
    values = np.where(marked, np.nan_to_num(own).mean(axis=0), np.nan)
    runs: list[tuple[int, int, float]] = []
    for index, value in enumerate(values.tolist()):
        if value != value:
            continue
        if runs and runs[-1][1] == index - 1 and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], index, value)
        else:
            runs.append((index, index, value))
    return runs


def span_words(spans: Sequence[CharSpan], offsets: np.ndarray) -> list[tuple[int, int, str]]:
    """[first token, last token, what the span says beside its value] of the spans that name an aspect, an annotator or a deviation."""
    found = []
    for span in spans:
        told = [span.aspect, span.annotator, "" if span.std is None else f"± {span.std:.3g}"]
        inside = np.flatnonzero(spans_to_tokens([span._replace(value=1.0)], offsets, outside=0.0))
        if any(told) and len(inside):
            words = clip_text(", ".join(part for part in told if part), 120)
            found.append((int(inside[0]), int(inside[-1]), f"{span.value:g} {words}"))
    return found


def quantise(values: np.ndarray) -> Json | float:
    """A number where all are equal, else low, step and two characters per value."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) == len(values) and len(values) and (values == values[0]).all():
        return float(f"{float(values[0]):.4g}")
    low = float(finite.min()) if len(finite) else 0.0
    step = (float(finite.max()) - low) / LEVELS if len(finite) else 0.0
    step = step if step > 0 else 1.0
    codes = [MISSING if not np.isfinite(value) else round((float(value) - low) / step) for value in values]
    return {"l": float(f"{low:.7g}"), "s": float(f"{step:.7g}"), "v": "".join(DIGITS[code // 64] + DIGITS[code % 64] for code in codes)}


def escape_json(data: object) -> str:
    """JSON that is safe inside a script element: no character that HTML or an old JavaScript parser could interpret."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _length(units: int) -> str:
    return DIGITS[units] if units < 63 else "_" + DIGITS[units // 4096] + DIGITS[units // 64 % 64] + DIGITS[units % 64]


_units: Callable[[str], int] = lambda text: len(text.encode("utf-16-le")) // 2  # JavaScript counts UTF-16 units


def _score(pair: ExaminedPair, role: str) -> float:
    score = pair.answers[role].score if role in pair.answers else None
    return float("nan") if score is None else score


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None
