"""The curves of one or several runs, one chart per quantity."""

from collections.abc import Sequence

from finegrain.report.charts import Chart, Series, draw_chart
from finegrain.report.read import Run
from finegrain.report.visible import clip_text

CHARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("loss", "eval_loss")),
    ("Reward margin", ("rewards/margins", "eval_margin")),
    ("Margin of log-probabilities, nats per token", ("logps/margins_per_token", "eval_margin_per_token")),
    ("Share of pairs ranked as labelled", ("rewards/accuracies", "logps/accuracies", "eval_accuracy", "eval_reward_accuracy")),
    ("Log-probability of answers, nats", ("logps/chosen", "logps/rejected", "logps/answer")),
    ("Rewards apart", ("rewards/chosen", "rewards/rejected")),
    ("Standard deviation of the reward", ("rewards/std_chosen", "rewards/std_rejected")),
    ("Credit: share kept", ("credit/kept_chosen", "credit/kept_rejected", "credit/kept_answer")),
    ("Held-out calibration of a reward model", ("eval_ece", "eval_nll")),
    ("Held-out ratings and steps", ("eval_rating_error", "eval_rating_exact", "eval_step_accuracy")),
    ("Gradient entanglement: share of pairs", ("gradients/as_wanted", "gradients/came_true_chosen", "gradients/came_true_rejected")),
    ("Cosine of chosen and rejected gradient", ("gradients/cosine",)),
    ("Learning rate", ("learning_rate",)),
    ("Gradient norm", ("grad_norm",)),
)
"""Title and logged names; names of one chart differ by dash, runs by colour (or names by colour where there is one run)."""


def draw_curves(runs: Sequence[Run]) -> list[Chart]:
    """Every chart that any run has numbers for."""
    found = [draw_chart(title, _series(runs, names)) for title, names in CHARTS]
    return [drawn for drawn in found if drawn is not None]


def _series(runs: Sequence[Run], names: Sequence[str]) -> list[Series]:
    series = []
    for place, run in enumerate(runs):
        for index, name in enumerate(names):
            points = [(line["step"], line[name]) for line in run.metrics if _is_number(line.get("step")) and _is_number(line.get(name))]
            if points:
                label = name if len(runs) == 1 else f"{clip_text(run.name, 40)}: {name}"
                colour = index if len(runs) == 1 else place
                series.append(Series(label, [step for step, _ in points], [value for _, value in points], colour % 6, index % 3))
    return series


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
