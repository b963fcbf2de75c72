"""run.json: what a run was asked, with what it ran, and what came of it. This record is the only place that knows its keys.

A training command writes it when it starts (status running), when it stops and when it ends; `again`, `inspect`, `--resume` and the report
read it. A field is None where the file lacks its key, and None is not written. Keys that this version does not know are kept in `other`.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

Json = dict[str, Any]
"""As in `types`, which imports torch: this file is read by commands that do not."""

PRODUCTS = "float32_products_on_cpu"
"""Key of the engine: the libraries that multiply; another choice sums in another order."""


@dataclass(kw_only=True)
class RunRecord:
    """The fields in the order of the file. Of a file that was read a value may have any type: a reader checks what it uses."""

    command: str | None = None
    """Name of the command (recipes/training/align.py)."""
    settings: Mapping[str, Any] | None = None
    """All settings by name, defaults included, as `finegrain again` reads them (recipes/training/align.py)."""
    versions: Mapping[str, str] | None = None
    """Versions of Python and of the packages that numbers come from (recipes/session.py)."""
    machine: Mapping[str, Any] | None = None
    """`device`, number of `processes`, and torch's `threads` of each (recipes/session.py)."""
    date: str | None = None
    """Local time at which the file was written last, with its offset from UTC (recipes/session.py)."""
    status: str | None = None
    """running, finished, failed or interrupted (recipes/training/align.py)."""
    reason: str | None = None
    """The error of a run that failed or was interrupted (recipes/training/publishing.py)."""
    changed: list[str] | None = None
    """What is otherwise than in the run that is resumed or repeated: model, data, versions, one sentence each (recipes/training/align.py)."""

    model: Mapping[str, Any] | None = None
    """The model that training starts from: `source`, and SHA-256 of its weights and of its tokenizer (recipes/training/align.py)."""
    unused_weights: list[str] | None = None
    """Weights of the checkpoint that the model does not use, by name (recipes/session.py)."""
    engine: Mapping[str, Any] | None = None
    """How passes are computed: `path` fused or plain, the `reason`, and the library of float32 products (recipes/session.py)."""
    dropout_set_to_zero: Mapping[str, float] | None = None
    """Dropout settings of the model that were set to 0, with what they were (recipes/session.py)."""
    start_head: str | None = None
    """Whether a reward model's head goes on as `trained`, or a `fresh` one begins (recipes/training/trainer.py)."""
    reward_head: Mapping[str, Any] | None = None
    """The reward head that an objective trains beside a policy: its method and reward weight (recipes/training/artifact.py)."""
    start_model: Mapping[str, Any] | None = None
    """The language model whose entropies cut answers into segments: `source`, `in_memory`, `sha256` (recipes/training/reward_artifact.py)."""

    sources: list[Mapping[str, Any]] | None = None
    """Checkpoints that were merged: `source`, `role`, SHA-256 of weights and tokenizer, `weight`, cosine to the first (recipes/merge.py)."""
    search: Mapping[str, Any] | None = None
    """Search of a merge's strength: what scored it, `best`, `start`, a line for each value `tried` (recipes/merge.py)."""
    merged: Mapping[str, Any] | None = None
    """What a merge did: `method`, `tensors`, `copied_buffers`, `files`, `weights_changed`, `relative_change`, `seconds` (recipes/merge.py)."""

    reward: Mapping[str, Any] | None = None
    """Of `iterate`, what scores the samples: its `kind` and `source`, and hashes of its weights or its file (recipes/iteration/checks.py)."""
    rewards: Mapping[str, Any] | None = None
    """Of `online`, what judges the sampled answers, by name: kind, source, hashes, weight (recipes/rollouts/rewards.py)."""
    gold_rewards: Mapping[str, Any] | None = None
    """The same of rewards that never train (recipes/rollouts/opening.py)."""
    references: Mapping[str, Any] | None = None
    """Of `online`, sha256 of the checkpoints read beside the policy's, by path: leash, watched, the critic's start (recipes/rollouts/opening.py)."""
    rounds: list[Mapping[str, Any]] | None = None
    """Of `iterate`, a line per finished round: rows, samples, what was left out, drift, loss, held-out results, seconds (recipes/iterate.py)."""
    stages: list[Mapping[str, Any]] | None = None
    """Of a recipe of `iterate`, a line per finished stage: its command, rows, steps, results (recipes/iterate.py)."""

    data: Mapping[str, Any] | None = None
    """Report of the data: source, SHA-256, format, shape, counts of rows, tokens and findings (recipes/training/data.py)."""
    eval_data: Mapping[str, Any] | None = None
    """The same of the file of --eval (recipes/training/data.py)."""
    holdout_words: list[str] | None = None
    """What is to be known of the held-out rows, in sentences: how they were drawn, that they are few (recipes/training/data.py)."""
    margin: Mapping[str, Any] | None = None
    """The column `margin`: `scale`, what was `asked`, `median` and `largest` size before scaling, `pairs` with one (recipes/training/data.py)."""
    categories: Mapping[str, list[str]] | None = None
    """By text column that the objective reads as numbers, its texts in the order of their numbers (recipes/training/data.py)."""
    texts_in_one_row: Mapping[str, int] | None = None
    """By text column that the objective reads, how many of its texts stand in a single training row (recipes/training/data.py)."""
    ranked_answers: Mapping[str, Any] | None = None
    """Of ranked answers: `rows_by_answers`, how many are `read`, `rows_with_more`, whether `scored`, `held_out_scored` (recipes/training/data.py)."""
    reading: Mapping[str, Any] | None = None
    """Which rows steps read, where not each once an epoch: what draws them, the second stream, counts (recipes/training/reading.py)."""
    stage: Mapping[str, Any] | None = None
    """An objective's stage: its `numbers` and `rewards`, what it read, sampled and scored, `seconds` (recipes/training/stage_context.py)."""
    train_only: Mapping[str, Any] | None = None
    """The `pattern` of --train-only, and how many tensors and numbers match it `of` how many (recipes/training/reading.py)."""
    samples: Mapping[str, Any] | None = None
    """Report of the unlabelled samples of meta:meta-rm (recipes/training/align.py)."""

    credit: Mapping[str, float] | None = None
    """What the credit keeps, drops and annotates, as shares by role: `credit/kept/chosen` ... (recipes/training/columns.py)."""
    credit_weight: str | None = None
    """What the weights of the credit mean: multiplier, certainty ... (recipes/training/columns.py)."""
    credit_seconds: float | None = None
    """Seconds that making the credit took (recipes/training/columns.py)."""
    token_table: Mapping[str, Any] | None = None
    """Of the run's own scorer: its accuracy on pairs it has not seen, types, knowledge, folds, seconds (recipes/training/own_scorer.py)."""
    stage_1: Mapping[str, float] | None = None
    """Scores of the reward model that targets come from, before standardising: `mean`, `std`, `answers` (recipes/training/reward_artifact.py)."""
    labelled_steps: Mapping[str, int] | None = None
    """Labelled steps of the data: `read`, and `cut_or_without_a_token` (recipes/training/answer_context.py)."""
    first_difference: Mapping[str, int] | None = None
    """Where chosen and rejected answers first differ, counted for loss:irl-sft (rewards/irl_sft.py)."""
    offset_segments: Mapping[str, int] | None = None
    """Segments that start at a character: how many, and those `without_a_token`, whose pairs do not count (objectives/offset_segments.py)."""
    edits: Mapping[str, int] | None = None
    """Pairs that are edits of one another, counted for loss:fine-grained (rewards/fine_grained.py)."""
    revisions: Mapping[str, int] | None = None
    """Rows, identical ones, those whose revision was cut, removed and added tokens, counted for objective:figa (objectives/figa.py)."""
    span_labels: Mapping[str, int] | None = None
    """Annotated answers and marked tokens, by aspect where the head has several, counted for loss:span-labels (rewards/span_labels.py)."""
    unread_spans: str | None = None
    """That people marked answers of the run, and that it does not learn from their marks (recipes/training/columns.py)."""
    word_table: Mapping[str, Any] | None = None
    """Of the table of words that a head's prior reads: `types`, whether it `knows` anything, `seconds` (recipes/training/answer_context.py)."""
    prior_weight: Mapping[str, Any] | None = None
    """The `weight` of that prior where none was given, `held_out_nll` by weight tried, `seconds` (recipes/training/prior_weight.py)."""

    train_seconds: float | None = None
    """Seconds from the first forward pass to the last step, scorer and reference included (recipes/training/align.py)."""
    steps: int | None = None
    """Optimiser steps taken (recipes/training/align.py)."""
    pairs: int | None = None
    """Training rows of a run on pairs (recipes/training/align.py)."""
    rows: int | None = None
    """Training rows of any other run; of `inspect` the rows looked at (recipes/training/align.py)."""
    tokens: int | None = None
    """Tokens of all steps (recipes/training/align.py)."""
    learning_rate: float | None = None
    """Peak learning rate (recipes/training/align.py)."""
    embedding_learning_rate: float | None = None
    """Peak learning rate of the input embeddings (recipes/training/align.py)."""
    gradient_at_start: Mapping[str, float] | None = None
    """Of an objective in two parts: gradient norms at the first step, the ranking's share, the bound's weight (recipes/training/watchers.py)."""
    tables: Mapping[str, Any] | None = None
    """Tables of the objective at the end, by name: numbers, by text where a place stands for a text of the data (recipes/training/publishing.py)."""
    kept: Mapping[str, Any] | None = None
    """Which step's model was kept, the last or the best, by which held-out result (recipes/training/align.py)."""
    stopped: str | None = None
    """Why training ended before its last step (recipes/training/align.py)."""
    answers: int | None = None
    """Of `online`, how many answers were sampled to train on (recipes/online.py)."""
    updates_skipped: int | None = None
    """Of `online`, updates that --kl-stop left out (recipes/rollouts/source.py)."""
    evaluation_before: Mapping[str, Any] | None = None
    """Of `online`, held-out results of the start model, as in `evaluation` (recipes/online.py)."""
    evaluation: Mapping[str, Any] | None = None
    """Held-out results of the finished model by name, each with mean, interval and rows, or the reason for none (recipes/training/align.py)."""
    last: Mapping[str, Any] | None = None
    """The last line of metrics.jsonl (recipes/training/align.py)."""
    card: Mapping[str, Any] | None = None
    """The score of the model card's example by finegrain and by transformers, or the `trouble` with it (recipes/training/publishing.py)."""

    peak_rss_bytes: int | None = None
    """Largest resident memory of the first process, bytes; absent where the system does not say (recipes/session.py)."""
    beside_training: Mapping[str, Any] | None = None
    """Forward passes besides training's own: `rows`, `tokens`, `seconds`, `notes` (recipes/session.py)."""

    other: Json = field(default_factory=dict)
    """Keys that are none of the above, of an older or newer version, or counted by a method of your own; written beside the others."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "RunRecord":
        """The record of a run.json, whatever its values are."""
        return cls().plus(stored)

    def plus(self, facts: Mapping[str, Any]) -> "RunRecord":
        """The record with these keys as well; those it does not know go to `other`."""
        record = copy(self)
        record.other = {**self.other, **{name: value for name, value in facts.items() if name not in KEYS}}
        for name in KEYS & facts.keys():
            setattr(record, name, facts[name])
        return record

    def as_json(self) -> Json:
        """What stands in run.json."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None} | self.other


NAMES = tuple(each.name for each in fields(RunRecord) if each.name != "other")
KEYS = frozenset(NAMES)
