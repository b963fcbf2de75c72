"""Several answers to one prompt, ranked or sorted into right and wrong: every pair of them, weighted to one per prompt."""

from itertools import combinations

from finegrain.data.columns import list_of, number_of, text_of
from finegrain.data.conversations import as_prompt, parse_prompt
from finegrain.data.convert.build import pair
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading


def nectar(row: Reading) -> list[Made]:
    """C(n,2) pairs of n ranked answers (rank 1 best), weight 2/(n(n-1)); equal ranks are a tie. The order of the list does not matter."""
    ranked = sorted((number_of(answer, "rank"), text_of(answer, "answer")) for answer in list_of(row, "answers", dict))
    if len(ranked) < 2:
        return [LeftOut.ONE_ANSWER if ranked else LeftOut.NO_ANSWER]
    pairs = list(combinations(ranked, 2))
    prompt = parse_prompt(text_of(row, "prompt"))
    return [
        pair(prompt, better, worse, {"weight": 1 / len(pairs), "tie": float(high == low), "chosen_rank": high, "rejected_rank": low})
        for (high, better), (low, worse) in pairs
    ]


def reward_bench_2(row: Reading) -> list[Made]:
    """Every right answer against every wrong one, weight one over their number; right ones are not compared with each other."""
    chosen, rejected = list_of(row, "chosen", str), list_of(row, "rejected", str)
    prompt = as_prompt(row["prompt"], "prompt")
    if not chosen or not rejected:
        return [LeftOut.NO_WRONG_ANSWER if chosen else LeftOut.NO_RIGHT_ANSWER if rejected else LeftOut.NO_ANSWER]
    weight = 1 / (len(chosen) * len(rejected))
    return [pair(prompt, right, wrong, {"weight": weight}) for right in chosen for wrong in rejected]
