"""Public sets of two answers, one preferred, or of several, ranked. docs/guides/data.md describes how preference strengths are used.

Columns: `margin` (0 or more, in the set's own units), `strength`, `label_prob` (probability that chosen is better), `tie` (1
where people preferred neither; chosen is then the first answer of the row).
"""

import math
from collections.abc import Mapping
from itertools import combinations

from finegrain.data.columns import read_choice, read_list, read_number, read_text
from finegrain.data.conversations import parse_extra_id, parse_prompt, read_prompt
from finegrain.data.convert.build import Prompt, make_assistant_turn, make_pair, make_single, replace_answers
from finegrain.data.convert.own import preference_turns, split_sides
from finegrain.data.convert.ranked import Ranked, make_ranked
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Turn
from finegrain.errors import DataError

STRONGEST = 3
"""HelpSteer's scale is -3..3."""
STRENGTH_NAMES = {"mean preference difference": "strength", "std preference difference": "strength_std", "GPT4 label": "gpt4_label"}


def hh_strength(row: Reading) -> list[Made]:
    """{chosen, rejected} as lists of turns, human first; left out where lengths differ or a turn is empty, as in the authors' loader."""
    sides = [read_list(row, role, str) for role in ("chosen", "rejected")]
    if len(sides[0]) != len(sides[1]):
        return [LeftOut.UNEQUAL_TURNS]
    if not all(turn.strip() for side in sides for turn in side):
        return [LeftOut.EMPTY_TURN]
    if not sides[0] or len(sides[0]) % 2:
        raise DataError(f"column 'chosen': expected turns that alternate from the human to the assistant, found {len(sides[0])}")
    chosen, rejected = (read_prompt(side, "chosen") for side in sides)
    return [
        replace_answers(one, one.answers, {STRENGTH_NAMES.get(name, name): value for name, value in one.columns.items()})
        for one in split_sides(row, chosen, rejected)
    ]


def ultrafeedback_binarized(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected} with scores; margin is the difference of scores, equal scores are a tie."""
    margin = read_number(row, "score_chosen") - read_number(row, "score_rejected")
    return [replace_answers(one, one.answers, {**one.columns, "margin": margin, "tie": float(margin == 0)}) for one in preference_turns(row)]


def helpsteer2_preference(row: Reading) -> list[Row]:
    """Strength -3..3, positive where response_2 is better."""
    strength = _strength(row, "preference_strength")
    return [_by_strength(parse_extra_id(read_text(row, "prompt")), read_text(row, "response_1"), read_text(row, "response_2"), strength, {})]


def helpsteer3_preference(row: Reading) -> list[Row]:
    """Strength -3..3, positive where response2 is better; label_prob: share of annotators on chosen's side, undecided ones half."""
    strength = _strength(row, "overall_preference")
    scores = [read_number(item, "score") for item in row.get("individual_preference") or ()]
    sign = -1.0 if strength <= 0 else 1.0
    agree = {"label_prob": sum(_half(sign * score) for score in scores) / len(scores)} if scores else {}
    return [_by_strength(read_prompt(row["context"], "context"), read_text(row, "response1"), read_text(row, "response2"), strength, agree)]


def _strength(row: Reading, column: str) -> float:
    strength = read_number(row, column)
    if abs(strength) > STRONGEST:
        raise DataError(f"column {column!r}: expected a number in -{STRONGEST}..{STRONGEST}, found {strength:g}")
    return strength


def _half(score: float) -> float:
    return 1.0 if score > 0 else 0.5 if score == 0 else 0.0


def _by_strength(prompt: Prompt, first: str, second: str, strength: float, more: Mapping[str, float]) -> Row:
    columns = {"strength": abs(strength), "margin": abs(strength), "tie": float(strength == 0), **more}
    return make_pair(prompt, second, first, columns) if strength > 0 else make_pair(prompt, first, second, columns)


def reward_bench(row: Reading) -> list[Row]:
    """{prompt, chosen, rejected}, the prompt as text or as turns."""
    return [make_pair(read_prompt(row["prompt"], "prompt"), read_text(row, "chosen"), read_text(row, "rejected"), {})]


def shp(row: Reading) -> list[Row]:
    """Answer A where labels is 1, else B; margin is the logarithm of the ratio of scores."""
    first, second = ("A", "B") if read_choice(row, "labels") else ("B", "A")
    ratio = read_number(row, "score_ratio")
    if ratio <= 0:
        raise DataError(f"column 'score_ratio': expected a positive number, found {ratio}")
    columns = {"margin": math.log(ratio), "score_ratio": ratio}
    scores = {f"{role}_score": float(row[f"score_{side}"]) for role, side in (("chosen", first), ("rejected", second)) if f"score_{side}" in row}
    chosen, rejected = (read_text(row, f"human_ref_{side}") for side in (first, second))
    return [make_pair((Turn("user", read_text(row, "history")),), chosen, rejected, {**columns, **scores})]


def pku_safe(row: Reading) -> list[Row]:
    """Two pairs: in one the more helpful answer is chosen (`helpful` 1), in the other the safer one (`harmless` 1). They may disagree."""
    rows = []
    for dimension, column in (("helpful", "better_response_id"), ("harmless", "safer_response_id")):
        chosen = read_choice(row, column)
        numbers = {"chosen": chosen, "rejected": 1 - chosen}
        safe = {role: read_choice(row, f"is_response_{n}_safe") for role, n in numbers.items()}
        flags = {f"is_{role}_safe": float(flag) for role, flag in safe.items()} | {f"{role}_unsafe": 1.0 - 2.0 * flag for role, flag in safe.items()}
        severity = {f"{role}_severity": read_number(row, name) for role, n in numbers.items() if (name := f"response_{n}_severity_level") in row}
        columns = {"helpful": float(dimension == "helpful"), "harmless": float(dimension == "harmless"), **flags, **severity}
        texts = [read_text(row, f"response_{n}") for n in numbers.values()]
        rows.append(make_pair((Turn("user", read_text(row, "prompt")),), texts[0], texts[1], columns))
    return rows


def pku_safe_demonstrations(row: Reading) -> list[Made]:
    """The answer that is better, safer and safe; left out where that is not one answer."""
    best = read_choice(row, "better_response_id")
    if best != read_choice(row, "safer_response_id"):
        return [LeftOut.BETTER_NOT_SAFER]
    if not read_choice(row, f"is_response_{best}_safe"):
        return [LeftOut.UNSAFE]
    return [make_single((Turn("user", read_text(row, "prompt")),), read_text(row, f"response_{best}"), {})]


def nectar(row: Reading) -> list[Made]:
    """C(n,2) pairs of n ranked answers (rank 1 is best), weight 2/(n(n-1)); equal ranks are a tie. The order of the list does not matter."""
    ranked = sorted((read_number(answer, "rank"), read_text(answer, "answer")) for answer in read_list(row, "answers", dict))
    if len(ranked) < 2:
        return [LeftOut.ONE_ANSWER if ranked else LeftOut.NO_ANSWER]
    pairs = list(combinations(ranked, 2))
    prompt = parse_prompt(read_text(row, "prompt"))
    return [
        make_pair(prompt, better, worse, {"weight": 1 / len(pairs), "tie": float(high == low), "chosen_rank": high, "rejected_rank": low})
        for (high, better), (low, worse) in pairs
    ]


def nectar_ranked(row: Reading) -> list[Made]:
    """The answers by rank."""
    answers = [Ranked(_turned(read_text(one, "answer")), read_number(one, "rank")) for one in read_list(row, "answers", dict)]
    return make_ranked(parse_prompt(read_text(row, "prompt")), answers)


def reward_bench_2_ranked(row: Reading) -> list[Made]:
    """Right answers with rank 1, wrong ones with rank 2."""
    both = ((1.0, read_list(row, "chosen", str)), (2.0, read_list(row, "rejected", str)))
    return make_ranked(read_prompt(row["prompt"], "prompt"), [Ranked(_turned(text), rank) for rank, texts in both for text in texts])


def _turned(text: str) -> Answer:
    return Answer(content=make_assistant_turn(text))


def reward_bench_2(row: Reading) -> list[Made]:
    """Every right answer against every wrong one, weight 1 / (number of pairs); right ones are not compared with each other."""
    chosen, rejected = read_list(row, "chosen", str), read_list(row, "rejected", str)
    prompt = read_prompt(row["prompt"], "prompt")
    if not chosen or not rejected:
        return [LeftOut.NO_WRONG_ANSWER if chosen else LeftOut.NO_RIGHT_ANSWER if rejected else LeftOut.NO_ANSWER]
    weight = 1 / (len(chosen) * len(rejected))
    return [make_pair(prompt, right, wrong, {"weight": weight}) for right in chosen for wrong in rejected]
