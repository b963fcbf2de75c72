"""The one table of commands: what each says of itself, its settings class and its recipe. Strings only, so that help is instant."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Command(NamedTuple):
    """One command that takes settings."""

    summary: str
    settings: str
    """`module:Class` below `finegrain`: a frozen dataclass."""
    run: str
    """`module:function` below `finegrain`: takes the settings, returns what is printed as the last line of stdout."""
    methods: Mapping[str, str | None] = {}
    """By family, the method of a command line that names none."""
    positional: tuple[str, ...] = ()
    """Fields given without a flag."""


PLAIN: Mapping[str, str] = {
    "methods": "the table of methods, or one page: [NAME]",
    "again": "the same run again: RUN/run.json --out OTHER",
}
"""Commands without a settings class of their own."""

COMMANDS: Mapping[str, Command] = {
    "check-data": Command(
        "find what is wrong with a data file before training: --data D [--model M]",
        "commands.check_data:CheckDataSettings",
        "recipes.check_data:run_check_data",
    ),
    "mark": Command(
        "a page in which people mark passages of answers: --data D --out mark.html; join exports: --merge A B --out spans.jsonl",
        "commands.mark:MarkSettings",
        "recipes.mark:run_mark",
    ),
    "annotate": Command(
        "marks, corrections, preferences or ratings by a model behind a server: --data D --by http://127.0.0.1:8000/v1 --task spans --out D2",
        "commands.annotate:AnnotateSettings",
        "recipes.annotate:run_annotate",
    ),
    "curate": Command(
        "repair noisy pairs, or make pairs from trees: --model M --data D --out cleaned.jsonl method:secrets-rm",
        "commands.curate:CurateSettings",
        "recipes.curate:run_curate",
    ),
    "sft": Command(
        "fine-tune on demonstrations: --model M --data D --out RUN",
        "commands.sft:SftSettings",
        "recipes.sft:run_sft",
        {"objective": "nll", "credit": None},
    ),
    "prefer": Command(
        "align a model on preference pairs: --model M --data D --out RUN objective:dpo",
        "commands.prefer:PreferSettings",
        "recipes.prefer:run_prefer",
        {"objective": "dpo", "credit": None},
    ),
    "iterate": Command(
        "sample and train in rounds: --model M --data D --out RUN rounds:self-play --rounds.count 5",
        "commands.iterate:IterateSettings",
        "recipes.iterate:run_iterate",
        {"objective": None, "credit": None},
    ),
    "online": Command(
        "sample answers, judge them, learn from it: --model M --data PROMPTS --reward R --out RUN algorithm:grpo",
        "commands.online:OnlineSettings",
        "recipes.online:run_online",
        {"algorithm": "grpo"},
    ),
    "reward": Command(
        "train a reward model: --model M --data D --out RUN head:token loss:bradley-terry",
        "commands.reward:RewardSettings",
        "recipes.reward:run_reward",
        {"head": "token", "loss": "bradley-terry"},
    ),
    "reward posterior": Command(
        "uncertainty of a trained reward model's scores (Laplace): RUN --data D",
        "commands.posterior:PosteriorSettings",
        "recipes.posterior:run_posterior",
        positional=("run",),
    ),
    "reward bound": Command(
        "an upper bound on the scores of a reward model, from clean pairs: RUN --data D",
        "commands.bound:BoundSettings",
        "recipes.bound:run_bound",
        positional=("run",),
    ),
    "reward classifier": Command(
        "a classifier of two or more piles of text as a reward: --data D --columns original simple --out FOLDER",
        "commands.classifier:ClassifierSettings",
        "recipes.classifier:run_classifier",
    ),
    "reward calibrate": Command(
        "the belief of any text classifier as a reward, on the scale of reference texts: --model M --data D --column simple --out simple.json",
        "commands.classifier:CalibrateSettings",
        "recipes.classifier:run_calibrate",
    ),
    "score": Command(
        "score answers, token by token where the reward is dense: --model REWARD_MODEL --data D --out scores.jsonl",
        "commands.score:ScoreSettings",
        "recipes.score:run_score",
    ),
    "score baseline": Command(
        "a sampler's scores by prompt, for score --baseline: --model REWARD_MODEL --data SAMPLES --out baseline.jsonl",
        "commands.baseline:BaselineSettings",
        "recipes.score_files.baseline_scores:run_baseline",
    ),
    "eval": Command(
        "test a reward on pairs, with intervals and baselines: --reward R --data rewardbench.jsonl",
        "commands.eval:EvalSettings",
        "recipes.eval:run_eval",
    ),
    "eval compare": Command(
        "agreement between rewards that scored the same answers: REFERENCE.jsonl OTHER.jsonl [OTHER2.jsonl ...]",
        "commands.compare:CompareSettings",
        "recipes.evaluation.comparison:run_compare",
        positional=("scores",),
    ),
    "inspect": Command(
        "one HTML page about runs, or about a model on data: RUN [RUN2 ...] | --model M --data D --out page.html",
        "commands.inspect:InspectSettings",
        "recipes.inspect:run_inspect",
        {"objective": None},
        positional=("runs",),
    ),
    "merge": Command(
        "one checkpoint of several, without training: --model A B --out M method:soup | --model A --base START --out M method:expo",
        "commands.merge:MergeSettings",
        "recipes.merge:run_merge",
    ),
    "bench credit": Command(
        "compare the uses of one scorer at equal tuning, by what the labels cost: --out DIR [scorer:span-model]",
        "commands.bench:BenchCreditSettings",
        "recipes.bench.run:run_bench_credit",
    ),
    "demo": Command("train a small model on planted pairs, with and without credit", "commands.demo:DemoSettings", "recipes.demo.run:run_demo"),
}
"""By what is typed; a name of two words is a sub-command: it belongs to the command, or to the group alone, that its first word names."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Check, mark and repair data": ("check-data", "mark", "annotate", "curate"),
    "Train": ("sft", "prefer", "online", "iterate", "reward", "reward posterior", "reward bound", "reward classifier", "reward calibrate"),
    "Merge": ("merge",),
    "Score, evaluate and inspect": ("score", "score baseline", "eval", "eval compare", "inspect"),
    "Try, look up, repeat": ("demo", "bench credit", "methods", "again"),
}
"""Every command once, by what a person wants to do."""

SUMMARIES: Mapping[str, str] = {**{name: command.summary for name, command in COMMANDS.items()}, **PLAIN}


def sub_commands(name: str) -> dict[str, str]:
    """The sub-commands of a command, with their summaries."""
    return {full: summary for full, summary in SUMMARIES.items() if full.startswith(f"{name} ")}


def resolve(target: str) -> Any:
    """The object of a `module:name` below `finegrain`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(f"finegrain.{module}"), name)


def recipe(command: Command) -> Callable[[Any], dict[str, Any]]:
    """What runs a command's settings."""
    function: Callable[[Any], dict[str, Any]] = resolve(command.run)
    return function
