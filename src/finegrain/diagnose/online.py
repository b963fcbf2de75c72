"""Health of online RL from means by buffer: reward, KL, entropy, lengths, cut answers, groups, density, judging, skipped updates, values.

A series holds one number per buffer, the oldest first, NaN where none was logged. Its ends are its first and last fifth.

Source: ours [OURS].
Deviations: every threshold below is a [choice].
"""

import numpy as np
from jaxtyping import Float

from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.diagnose.hacking import split_ends
from finegrain.ops.stats import Interval, difference_interval

Numbers = Float[np.ndarray, " N"]

REWARD_RISES, REWARD_FALLS, REWARD_STANDS = "reward rises", "reward falls", "reward stands still"
RUNS_AWAY, BOUNDED = "KL runs away", "KL bounded"
COLLAPSED, NARROWS, VARIED = "collapsed", "narrows", "answers vary"
DRIFTS, STEADY = "length drifts", "length steady"
MOST_CUT, SOME_CUT, THEY_END = "most answers cut", "some answers cut", "answers end"
MOST_DEAD, SOME_DEAD, GROUPS_DIFFER = "most groups dead", "some groups dead", "groups differ"
ERASED, DENSE, TERMINAL = "density erased", "density kept", "no dense reward"
NONE_JUDGED, SOME_UNJUDGED, ALL_JUDGED = "no answer judged", "some not judged", "all judged"
MOST_SKIPPED, SOME_SKIPPED, NONE_SKIPPED = "most updates skipped", "some updates skipped", "updates taken"
EXPLAINS_NOTHING, EXPLAINS_LITTLE, EXPLAINS = "explains nothing", "explains little", "explains"
COME_APART, TOGETHER = "members come apart", "members stay together"
TOO_FEW = "too few buffers"

WORDS = {
    REWARD_RISES: "The reward of sampled answers has risen.",
    REWARD_FALLS: "The reward of sampled answers has fallen: the run makes the model worse by its own measure.",
    REWARD_STANDS: "No change of the reward is distinguishable from its scatter over buffers.",
    RUNS_AWAY: "The policy runs away from its reference: the KL is large and does not slow down. Raise beta, lower the rate, or set --kl-stop.",
    BOUNDED: "The policy stays near its reference, or its distance stops growing.",
    COLLAPSED: "The policy has collapsed: it gives almost the same answer every time, so that sampling explores nothing any more.",
    NARROWS: "The policy narrows: its entropy is below a quarter of that at the start. It still samples, but explores less and less.",
    VARIED: "Sampled answers still differ from one another.",
    DRIFTS: "The length of answers drifts. Check that the reward does not pay for length alone.",
    STEADY: "The length of answers has not drifted.",
    MOST_CUT: "Most answers are cut at the largest length, so that their ends, and rewards that need an end, are never seen. "
    "Raise --sampling.max-new-tokens, or give stop strings or a penalty for answers that do not end.",
    SOME_CUT: "Some answers are cut at the largest length.",
    THEY_END: "Nearly all answers come to an end of their own.",
    MOST_DEAD: "In most groups all answers have the same reward: a baseline of the group leaves them no advantage, so they teach nothing. "
    "Where the reward is at its largest these prompts are solved; where it is at its smallest they are too hard for now.",
    SOME_DEAD: "In some groups all answers have the same reward; a baseline of the group leaves these no advantage.",
    GROUPS_DIFFER: "In nearly all groups some answers have more reward than others.",
    ERASED: "The dense reward is erased: answers have rewards on several tokens, but within an answer all tokens have almost the same advantage. "
    "Take an advantage that keeps places apart, such as advantage:gae or advantage:returns.",
    DENSE: "Advantages differ within answers.",
    TERMINAL: "Rewards stand on the last token alone, so there is no density that could be lost.",
    NONE_JUDGED: "No answer was judged in the last buffers: the run learns from nothing but its leash.",
    SOME_UNJUDGED: "Some answers were not judged, and were left out.",
    ALL_JUDGED: "Every answer was judged.",
    MOST_SKIPPED: "Most updates were skipped, because the KL of the step had passed --kl-stop, or a selection kept no answer: "
    "sampling is paid for and not used. "
    "Lower the learning rate or the epochs per buffer, or raise --kl-stop.",
    SOME_SKIPPED: "Some updates were skipped, because the KL of the step had passed --kl-stop, or a selection kept no answer.",
    NONE_SKIPPED: "No, or hardly any, update was skipped.",
    EXPLAINS_NOTHING: "The value function explains nothing of the returns, so that advantages are as noisy as without one. "
    "Give it a larger rate, more epochs, or a longer warm-up, or use a group baseline instead.",
    EXPLAINS_LITTLE: "The value function explains little of the returns.",
    EXPLAINS: "The value function explains part of the returns.",
    COME_APART: "The members of a reward come apart: answers leave what the reward was trained on, so that it means less and less. "
    "Stop earlier, tie the policy more tightly, or lower the share of the most certain member (--aggregate.share).",
    TOGETHER: "The members of each reward are about as far apart as at the start.",
    TOO_FEW: f"No verdict on fewer than {FEWEST_ROWS} buffers.",
}

HIGH_KL = 1.0
"""Nats per token: on average a token is e times as likely as under the reference."""
LOW_ENTROPY = 0.05
"""Nats per token: about what a token has whose likeliest choice has 99 % of the probability."""
FALLEN_ENTROPY = 0.5
"""A low entropy is a collapse only where it is below this share of the start's: some models begin sure."""
NARROW_ENTROPY = 0.25
"""Share of the start's entropy."""
SAME_ANSWERS = 0.5
"""Largest share of distinct sampled answers that is a collapse, as such and against the start's share."""
DRIFT = 1.5
"""Factor by which mean lengths differ, either way."""
MOST, SOME = 0.5, 0.1
"""Shares of answers cut, of groups without a difference, of updates skipped."""
LITTLE_DENSITY = 0.01
"""Share of the advantage's variance that lies within answers."""
APART = 2.0
"""Factor by which the members' spread has grown."""
NO_VALUE, LITTLE_VALUE = 0.05, 0.3
"""Explained variance of the returns."""


def assess_reward(reward: Numbers) -> str:
    """Whether the reward's last fifth is above its first, by Welch's interval."""
    change = compare_ends(reward)
    if change is None:
        return TOO_FEW
    low, high = _bounds(change)
    return REWARD_RISES if low > 0 else REWARD_FALLS if high < 0 else REWARD_STANDS


def assess_kl(kl: Numbers) -> str:
    """Runaway: above HIGH_KL in the last third, which has gained no less than the middle third had; or no longer finite."""
    known = kl[~np.isnan(kl)]
    if len(known) and (np.isinf(known).any() or (len(kl) > len(known) and np.isnan(kl[-1]))):
        return RUNS_AWAY
    if len(known) < FEWEST_ROWS:
        return TOO_FEW
    first, middle, last = (float(part.mean()) for part in np.array_split(known, 3))
    return RUNS_AWAY if last >= HIGH_KL and last - middle >= middle - first else BOUNDED


def assess_variety(entropy: Numbers, distinct: Float[np.ndarray, " M"]) -> str | None:
    """Collapse by entropy (nats per token), or by the share of distinct texts among a buffer's sampled answers; None where neither is known."""
    found = [_entropy_verdict(entropy), _distinct_verdict(distinct)]
    return next((verdict for verdict in (COLLAPSED, NARROWS, VARIED, TOO_FEW) if verdict in found), None)


def _entropy_verdict(entropy: Numbers) -> str | None:
    known = _finite(entropy)
    if len(known) < FEWEST_ROWS:
        return TOO_FEW if len(known) else None
    first, last = (float(part.mean()) for part in split_ends(known))
    if last < LOW_ENTROPY and last < FALLEN_ENTROPY * first:
        return COLLAPSED
    return NARROWS if last < NARROW_ENTROPY * first else VARIED


def _distinct_verdict(distinct: Float[np.ndarray, " M"]) -> str | None:
    known = _finite(distinct)
    if len(known) < 2:
        return None
    first, last = (float(part.mean()) for part in split_ends(known))
    return COLLAPSED if last <= SAME_ANSWERS and last <= SAME_ANSWERS * first else VARIED


def assess_length(length: Numbers) -> str:
    """Drift: the ends' mean lengths differ by the factor DRIFT, and their difference is not scatter."""
    change = compare_ends(length)
    if change is None:
        return TOO_FEW
    first, last = (float(part.mean()) for part in split_ends(_finite(length)))
    far = last >= DRIFT * first or last <= first / DRIFT
    low, high = _bounds(change)
    return DRIFTS if far and (low > 0 or high < 0) else STEADY


def assess_truncation(cut: Numbers) -> str:
    """By the share of answers cut, in the last fifth."""
    return _grade(_last(cut), MOST_CUT, SOME_CUT, THEY_END)


def assess_groups(dead: Numbers) -> str:
    """By the share of groups whose answers all have the same reward, in the last fifth."""
    return _grade(_last(dead), MOST_DEAD, SOME_DEAD, GROUPS_DIFFER)


def assess_skips(skipped: Numbers, taken: Numbers) -> str:
    """By the share of all updates that was skipped."""
    return _grade(skipped_share(skipped, taken), MOST_SKIPPED, SOME_SKIPPED, NONE_SKIPPED)


def skipped_share(skipped: Numbers, taken: Numbers) -> float:
    """Skipped updates as a share of all."""
    left_out, done = float(np.nansum(skipped)), float(np.nansum(taken))
    return left_out / max(left_out + done, 1.0)


def assess_density(density: Numbers, dense: bool) -> str:
    """`dense`: answers have rewards on tokens before their last."""
    if not dense:
        return TERMINAL
    return ERASED if _last(density) < LITTLE_DENSITY else DENSE


def assess_judging(reward: Numbers, unjudged: Numbers) -> str:
    """Whether the last fifth of the buffers has any reward, and whether answers were left out."""
    ends = np.isfinite(reward[-max(1, len(reward) // 5) :])
    if not ends.any():
        return NONE_JUDGED
    return SOME_UNJUDGED if np.nansum(unjudged) > 0 or not ends.all() else ALL_JUDGED


def assess_value(explained: Numbers) -> str:
    """By the explained variance of returns in the last fifth."""
    if len(_finite(explained)) < FEWEST_ROWS:
        return TOO_FEW
    last = _last(explained)
    return EXPLAINS_NOTHING if last < NO_VALUE else EXPLAINS_LITTLE if last < LITTLE_VALUE else EXPLAINS


def assess_spread(spread: Numbers) -> str:
    """Apart: the last fifth's spread of a reward's members is at least APART times the first fifth's, and their difference is not scatter."""
    change = compare_ends(spread)
    if change is None:
        return TOO_FEW
    first, last = (float(part.mean()) for part in split_ends(_finite(spread)))
    return COME_APART if last >= APART * first and _bounds(change)[0] > 0 else TOGETHER


def compare_ends(values: Numbers) -> Interval | None:
    """Mean of the last fifth minus that of the first; None on fewer than ten buffers."""
    known = _finite(values)
    if len(known) < FEWEST_ROWS:
        return None
    first, last = split_ends(known)
    return difference_interval(last, first)


def _grade(share: float, bad: str, some: str, good: str) -> str:
    return bad if share >= MOST else some if share >= SOME else good


def _last(values: Numbers) -> float:
    return float(split_ends(_finite(values))[1].mean())


def _finite(values: Numbers) -> np.ndarray:
    found: np.ndarray = values[np.isfinite(values)]
    return found


def _bounds(interval: Interval) -> tuple[float, float]:
    return (interval.mean if interval.low is None else interval.low), (interval.mean if interval.high is None else interval.high)
