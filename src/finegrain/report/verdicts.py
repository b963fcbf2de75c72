"""The effects of a run as blocks of the page: a sentence, numbers with intervals, and rows to look at."""

from collections.abc import Callable, Sequence

import numpy as np

from finegrain.diagnose import agreement, coverage, displacement, length
from finegrain.diagnose.groups import group_means
from finegrain.ops.stats import Interval, mean_interval
from finegrain.report.block import Block
from finegrain.report.entanglement import report_entanglement
from finegrain.report.held_out import report_held_out
from finegrain.report.marked import report_marked
from finegrain.report.marks import MARKS, SIGNALS, answer_disagreement
from finegrain.report.numbers import Shown, format_interval, format_number, format_percent
from finegrain.report.online_findings import make_online_findings
from finegrain.report.pack import split_tokens
from finegrain.report.pairs import ExaminedAnswer, ExaminedPair
from finegrain.report.read import Run
from finegrain.report.reward_findings import make_reward_findings
from finegrain.terminal import make_visible
from finegrain.types import WeightMeaning

COUNTED = "no interval: counted over all training answers"
UNEQUAL = "rows of unequal lengths"
RANKED = (
    "The probability that, of two tokens of one answer, the better marked one has the lower signal: 0.5 is chance, 0 full agreement. "
    "Mean over answers, Student t. A credit computed from the same marks agrees with them by construction."
)


def make_blocks(run: Run) -> list[Block]:
    """Every finding that the run's files allow."""
    found = [
        *make_online_findings(run),
        *make_reward_findings(run),
        report_marked(run),
        report_held_out(run),
        report_displacement(run),
        report_entanglement(run),
        report_length(run),
        report_coverage(run),
        *report_agreement(run),
    ]
    return [block for block in found if block is not None]


def report_displacement(run: Run) -> Block | None:
    """Whether the chosen answers became less probable."""
    pairs = [pair for pair in run.pairs or () if np.isfinite(pair.margin)]
    if not pairs:
        return _single_answers(run)
    chosen, rejected = (np.array([pair.change(role) for pair in pairs]) for role in ("chosen", "rejected"))
    held, rows = np.array([pair.held_out for pair in pairs]), np.array([pair.row for pair in pairs])
    groups = np.unique(np.stack([rows, held]), axis=1, return_inverse=True)[1].ravel()
    whole = displacement.assess_displacement(chosen, rejected, groups)
    over = "pairs" if len(set(groups.tolist())) == len(pairs) else f"rows ({len(pairs)} pairs)"
    numbers = [
        format_interval("chosen answers, change", whole.chosen, "nats", over=over, signed=True),
        format_interval("rejected answers, change", whole.rejected, "nats", over=over, signed=True),
        format_interval("margin gained", whole.margin, "nats", over=over, signed=True),
    ]
    for name, part in (("held-out pairs", held), ("training pairs", ~held)):
        if part.any() and not part.all():
            for role, values in (("chosen", chosen), ("rejected", rejected)):
                mean = mean_interval(group_means(values[part], groups[part]))
                numbers.append(format_interval(f"{role}, {name}", mean, "nats", over=over.partition(" ")[0], signed=True))
    lowest = {pair.row: pair for pair in sorted(pairs, key=lambda pair: -pair.change("chosen"))}
    fell = sorted(lowest.values(), key=lambda pair: pair.change("chosen"))[:5]
    share = displacement.concentration(chosen)
    notes = ["Nats per answer. Intervals: Student t over the examined pairs, the pairs of one row of the data counted as one."]
    if share is not None:
        carried = f"The {share.pairs} of {share.of_pairs} pairs that fell most account for {format_percent(share.share)} of the fall"
        notes.insert(0, f"{carried} (no interval: a description of these pairs).")
    return Block(
        title="Chosen and rejected log-probability",
        verdict=whole.verdict,
        words=whole.words,
        numbers=numbers,
        pairs=[(pair.row, format_number(pair.change("chosen"), signed=True)) for pair in fell if pair.change("chosen") < 0],
        tokens=_falling_tokens(list({(pair.row, pair.answers["chosen"].text): pair.answers["chosen"] for pair in pairs}.values())),
        notes=notes,
    )


def _single_answers(run: Run) -> Block | None:
    """Runs whose rows have one answer: the change, by label where there is one."""
    pairs = [pair for pair in run.pairs or () if np.isfinite(pair.change("answer"))]
    if not pairs:
        return None
    groups: dict[str, Callable[[ExaminedPair], bool]] = {
        "answers labelled good, change": lambda pair: pair.label is not None and pair.label > 0.5,
        "answers labelled bad, change": lambda pair: pair.label is not None and pair.label <= 0.5,
        "answers, change": lambda pair: pair.label is None,
    }
    changes = {name: mean_interval([pair.change("answer") for pair in pairs if belongs(pair)]) for name, belongs in groups.items()}
    shown = {name: interval for name, interval in changes.items() if interval.rows}
    good = shown.get("answers labelled good, change", shown.get("answers, change", Interval(0.0, None, None, 0)))
    bad = shown.get("answers labelled bad, change")
    verdict = _single_verdict(displacement.sign(good), None if bad is None else displacement.sign(bad))
    return Block(
        title="Log-probability of the answers",
        verdict=verdict,
        words={
            displacement.RAISED: "The answers to be reinforced became more probable.",
            displacement.DISPLACED: "Likelihood displacement: the answers to be reinforced became less probable, and the others fell too.",
            displacement.WORSE: "The answers to be reinforced became less probable.",
            displacement.UNDECIDED: "The change of the answers to be reinforced is not distinguishable from zero at this number of rows.",
        }[verdict],
        numbers=[format_interval(name, interval, "nats", over="answers", signed=True) for name, interval in shown.items()],
        tokens=_falling_tokens([pair.answers["answer"] for pair in pairs if pair.label is None or pair.label > 0.5]),
        notes=["Nats per answer. Intervals: Student t over the examined answers."],
    )


def _single_verdict(good: int, bad: int | None) -> str:
    if good < 0:
        return displacement.DISPLACED if bad is not None and bad < 0 else displacement.WORSE
    return displacement.RAISED if good > 0 else displacement.UNDECIDED


def _falling_tokens(answers: Sequence[ExaminedAnswer]) -> list[tuple[str, str, str, str]]:
    known = [answer for answer in answers if answer.ratio is not None and answer.mask.any()]
    texts = [[piece or "(end or no characters)" for piece, on in zip(split_tokens(answer), answer.mask, strict=False) if on] for answer in known]
    changes = displacement.token_changes(texts, [answer.ratio[answer.mask] for answer in known if answer.ratio is not None])
    rows = []
    for text, total, mean in changes:
        shown = format_interval("", mean, "", over="answers", signed=True)
        rows.append((make_visible(text), format_number(total, signed=True), shown.value, shown.interval))
    return rows


def report_length(run: Run) -> Block | None:
    """Length against reward."""
    pairs = [pair for pair in run.pairs or () if np.isfinite(pair.margin)]
    if len(pairs) < 2:
        return None
    lengths = np.array([[int(pair.answers[role].mask.sum()) for role in ("chosen", "rejected")] for pair in pairs])
    rewards = np.array([[pair.change(role) for role in ("chosen", "rejected")] for pair in pairs])
    found = length.assess_length(lengths, rewards, np.array([pair.row for pair in pairs]))
    return Block(
        title="Length against reward",
        verdict=found.verdict,
        words=found.words,
        numbers=[
            format_interval("rank correlation of tokens and reward", found.correlation, "", over="rows", signed=True),
            format_interval("longer answer has more reward", found.reward_prefers_longer, "", over=UNEQUAL, share=True),
            format_interval("longer answer is the chosen one", found.label_prefers_longer, "", over=UNEQUAL, share=True),
        ],
        notes=[
            "Reward: the change of an answer's log-probability by training, summed over its tokens (the implicit reward of DPO, without beta).",
            "Intervals: bootstrap over rows of the data for the correlation, Wilson for shares. Length hacking is named where the correlation is "
            f"at least {length.STRONG}, its interval is above zero, and the reward prefers the longer answer more often than the labels do.",
        ],
    )


def report_coverage(run: Run) -> Block | None:
    """What the credit keeps."""
    found, notes = {}, []
    for role in ("chosen", "rejected", "answer"):
        answers = [pair.answers[role] for pair in run.pairs or () if role in pair.answers and pair.answers[role].weight is not None]
        weights = [answer.weight[answer.mask] for answer in answers if answer.weight is not None and answer.mask.any()]
        if weights:
            found[role] = coverage.assess_coverage(weights)
    credit = run.record.credit if isinstance(run.record.credit, dict) else {}
    kept = {key.rpartition("/")[2]: value for key, value in credit.items() if key.startswith("credit/kept/") and isinstance(value, (int, float))}
    if not found and not kept:
        return None
    if run.record.credit_weight == WeightMeaning.CERTAINTY.name.lower():
        return Block(
            title="Certainty of the token rewards",
            verdict="not judged",
            words="The weight of this credit is the certainty of the token rewards: it drops no token, but counts uncertain ones less.",
            numbers=[format_interval(f"certainty in {role} answers", part.kept, "", over="answers", share=True) for role, part in found.items()]
            + [Shown(f"certainty over all {role} tokens", format_percent(float(value)), COUNTED) for role, value in kept.items()],
        )
    counted_only = {role: coverage.share_verdict(value, value == 1) for role, value in kept.items()}
    verdicts = {role: part.verdict for role, part in found.items()} or counted_only
    verdict = next(name for name in coverage.WORDS if name in verdicts.values())
    guilty = [role for role, name in verdicts.items() if name == verdict]
    words = coverage.WORDS[verdict] if len(guilty) == len(verdicts) else f"In {' and '.join(guilty)} answers: {coverage.WORDS[verdict]}"
    numbers = []
    for role, part in found.items():
        numbers.append(format_interval(f"kept of {role} answers", part.kept, "", over="answers", share=True))
        numbers.append(format_interval(f"{role} answers that keep no token", part.dropped, "", over="answers", share=True))
    numbers += [Shown(f"kept of all {role} tokens", format_percent(float(value)), COUNTED) for role, value in kept.items()]
    if found:
        notes.append("Kept: mean token weight per answer over examined training answers with a credit; Student t over answers, Wilson for shares.")
    return Block(title="What the credit keeps", verdict=verdict, words=words, numbers=numbers, notes=notes)


def report_agreement(run: Run) -> list[Block]:
    """Signals compared with marks, for every kind of marks the run has."""
    distinct = {(pair.row, role, answer.text): (role, answer) for pair in run.pairs or () for role, answer in pair.answers.items()}
    answers = list(distinct.values())
    found = []
    for kind, named in MARKS.items():
        numbers, verdicts = [], {}
        for name, words in SIGNALS.items():
            values = [answer_disagreement(answer, role, name, getattr(answer, kind)) for role, answer in answers]
            interval, verdict = agreement.mean_disagreement(values)
            if interval.rows:
                verdicts[name] = verdict
                numbers.append(format_interval(words, interval, "", over="answers"))
        if verdicts:
            first = next(iter(verdicts))
            found.append(
                Block(
                    title=f"Disagreement with {named}",
                    verdict=verdicts[first],
                    words=f"{SIGNALS[first].capitalize()}: {agreement.WORDS[verdicts[first]][0].lower()}{agreement.WORDS[verdicts[first]][1:]}",
                    numbers=numbers,
                    notes=[RANKED],
                )
            )
    return found
