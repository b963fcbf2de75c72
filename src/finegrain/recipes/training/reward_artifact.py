"""What `finegrain reward` makes: what its steps log, how it is tested on held-out pairs, and the stock layout it is saved in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.data.aspects import annotation_of
from finegrain.data.records import Example
from finegrain.errors import UsageError
from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.calibration import pair_calibration
from finegrain.evaluate.discrimination import mistakes_found
from finegrain.evaluate.marked_tokens import RECORDED, MarkedAnswer, measure_marks
from finegrain.evaluate.ratings import report_ratings
from finegrain.models.reward_head import stock_rows
from finegrain.models.reward_models import SEQUENCE, TOKEN, RewardModel, Stock, check_stock, save_reward_model, try_saving
from finegrain.models.score import split_by_budget
from finegrain.models.scorer import causal_lm
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.proportions import wilson
from finegrain.ops.readout import Last
from finegrain.ops.stats import Interval, mean_interval
from finegrain.recipes.session import Session
from finegrain.recipes.training.artifact import RowColumns
from finegrain.recipes.training.reward_usage import Usage, use_saved
from finegrain.recipes.training.stage_1 import stage_1_targets
from finegrain.rewards.declarations import LossDeclarations, read_head, read_loss
from finegrain.rewards.heads import RewardHead, aspect_scores, sequence_score, token_scores
from finegrain.rewards.lort import logit_magnitude
from finegrain.rewards.rating import Rating
from finegrain.rewards.rating_labels import RatingLabels, calibrate_head, predict_ratings
from finegrain.scoring.marked import join_marks
from finegrain.scoring.scale import ENTRY, fit_scale
from finegrain.scoring.segmentation import start_model_facts
from finegrain.scoring.stock_number import check_causal
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.contract import Contract
from finegrain.train.detach import detached
from finegrain.train.evaluation import Read, as_record, measuring
from finegrain.train.loop import Trainer
from finegrain.train.tally import Measure, Measures, Metrics
from finegrain.types import Json, Pair, Scored, Side

UNWEIGHED = {"stock_load": "gives scores before they are weighed: the weights need the whole answer, and reward_head.safetensors"}
"""For the config of a head that weighs tokens against one another."""


LOOKED_AT = 5
"""Tokens, any, by which a start model shows that none of them looks ahead."""


def stock_of(head: RewardHead) -> Stock:
    """Sequence classification where the last token speaks for the answer, token classification otherwise."""
    return SEQUENCE if isinstance(head.readout, Last) and read_head(head).read_positions is None else TOKEN


@dataclass(frozen=True)
class RewardArtifact:
    """A reward model."""

    head: RewardHead
    facts: Mapping[str, Any]
    """Names and settings of head and loss, for the checkpoint."""
    stage_1: RewardModel | None = None
    """The reward model that the run starts from, where its loss reads that model's rewards."""
    found: dict[str, Any] = field(default_factory=dict)
    """What a run finds, for the checkpoint: the start model, and after training what the head fits on held-out answers."""

    @property
    def loader(self) -> str:
        """The stock class."""
        return stock_of(self.head).name

    def check(self, session: Session) -> Json:
        """Refuse before training what could not be saved."""
        check_stock(session.policy.model, stock_of(self.head))
        if session.policy.four_bit:
            raise UsageError("a reward model is saved with its adapter merged into the weights, which 4-bit ones cannot hold; drop --lora.base")
        ids = torch.arange(LOOKED_AT, device=session.device)[None] % causal_lm(session.policy.model).config.get_text_config().vocab_size
        check_causal(session.policy.model, session.precision, session.policy.source, ids)
        if read_head(self.head).reads_entropy:
            self.found["start_model"] = start_model_facts(session.policy)
        return dict(self.found)

    def metrics(self, contract: Contract) -> Metrics:
        """Scores of both sides, their difference and how often it is right."""
        return lambda pair: reward_metrics(self.head, pair)

    def results(self, contract: Contract) -> Mapping[str, bool]:
        """Of pairs the likelihood first, which still rises where accuracy is full; what the loss measures, accuracy and calibration."""
        own = read_loss(contract.loss).results
        return {"eval_nll": False, **own, "eval_accuracy": True, "eval_ece": False} if "chosen" in contract.roles else dict(own)

    def evaluate(self, trainer: Trainer, data: TrainingSet) -> dict[str, Any]:
        """Pair accuracy with its interval and its length-only baseline, calibration, what the std says of mistakes; the loss's own measures."""
        return self._evaluated(trainer, data, None)[0]

    def conclude(self, trainer: Trainer, data: TrainingSet, read: Read | None = None) -> dict[str, Any]:
        """The same, without log-probabilities to `read`.

        What the head fits on held-out answers is kept for the checkpoint, and a head that says nothing is refused.
        """
        results, facts, fitted = self._evaluated(trainer, data, Bootstrap())
        self.found.update(fitted)
        check = read_head(self.head).check
        if check is not None and facts:
            check({name: float(values.mean()) for name, values in facts.items()})
        return results

    def _evaluated(
        self, trainer: Trainer, data: TrainingSet, bootstrap: Bootstrap | None
    ) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        """Results, those of marked tokens without intervals where nobody draws them, the head's facts of every answer, and what it fits on them."""
        loss = trainer.contract.loss
        paired = "chosen" in trainer.contract.roles
        if not data.examples:
            return {}, {}, {}
        parts, facts, pairs, answers = _scores(self.head, trainer, data)
        marks = {f"{RECORDED}{name}": as_record(interval) for name, interval in measure_marks(answers, bootstrap).items()}
        calibrated = calibrate_head(self.head, loss, pairs) if isinstance(loss, RatingLabels) and isinstance(self.head, Rating) else self.head
        fitted: dict[str, Any] = _scale([sequence_score(calibrated, side) for pair in pairs for side in pair.sides.values()])
        if (fit := read_head(self.head).fitted) is not None:
            fitted |= fit([side for pair in pairs for side in pair.sides.values()])
        own = self._of_loss(loss, pairs, trainer.data, fitted)
        own |= marks
        return ({**own, **self._of_pairs(data, parts, facts)}, facts, fitted) if paired else (own, {}, fitted)

    def _of_loss(self, loss: Any, pairs: Sequence[Pair], trained: TrainingSet, fitted: dict[str, Any]) -> dict[str, Any]:
        """What the loss measures of held-out rows; a rating head first gets its temperature from them."""
        if not isinstance(loss, RatingLabels):
            return _measured(self.head, read_loss(loss), pairs)
        assert isinstance(self.head, Rating)
        head = calibrate_head(self.head, loss, pairs)
        fitted["head"] = {**self.facts["head"], "temperature": head.temperature}
        by_rating = {name: as_record(interval) for name, interval in measure_ratings(head, pairs, trained.columns["rating_place"]).items()}
        return _measured(head, read_loss(loss), pairs) | by_rating

    def _of_pairs(self, data: TrainingSet, parts: list[dict[str, Scored]], facts: dict[str, Tensor]) -> dict[str, Any]:
        scores = {role: _joined([score[role] for score in parts]) for role in ("chosen", "rejected")}
        chosen, rejected = (scores[role].mean.double().numpy() for role in ("chosen", "rejected"))
        lengths = {role: torch.tensor([float(len(e.responses[role].ids)) for e in data.examples]).numpy() for role in ("chosen", "rejected")}
        calibration = pair_calibration(chosen, rejected)
        found: dict[str, Any] = {
            "eval_accuracy": as_record(pair_accuracy(chosen, rejected).accuracy),
            "eval_accuracy_length_only": as_record(pair_accuracy(lengths["chosen"], lengths["rejected"]).accuracy),
            "eval_ece": as_record(calibration.error),
            "eval_nll": as_record(calibration.negative_log_likelihood),
        }
        if scores["chosen"].std is not None and scores["rejected"].std is not None:
            uncertainty = (scores["chosen"].std.square() + scores["rejected"].std.square()).sqrt().double().numpy()
            correct = chosen > rejected
            if correct.any() and not correct.all():
                found["eval_mistakes_auroc"] = as_record(mistakes_found(correct, uncertainty))
        found |= {f"eval_head/{name}": as_record(mean_interval(values.numpy())) for name, values in facts.items()}
        return found

    def columns(self, session: Session, examples: Sequence[Example]) -> RowColumns:
        """Numbers made for the rows before training: a stage-1 reward of both answers, where the loss learns from one."""
        if self.stage_1 is None:
            return RowColumns({}, {})
        targets, facts = stage_1_targets(session, self.stage_1, examples)
        return RowColumns(targets, {"stage_1": facts})

    def try_saving(self, session: Session, folder: Path) -> None:
        """The same, without the weights of backbone and head."""
        try_saving(session.policy, stock_of(self.head), self._written(), folder)

    def save(self, session: Session, contract: Contract, folder: Path) -> None:
        """The stock layout, the whole head and what it means."""
        assert session.scorer is not None
        assert session.scorer.head is not None
        rows = self.head.stock(stock_rows(session.scorer.head))
        length = session.max_length
        save_reward_model(session.policy, session.scorer.head, rows, stock_of(self.head), self._written(), folder, max_length=length)

    def _written(self) -> dict[str, Any]:
        """What the checkpoint says of its head."""
        facts = {**self.facts, **self.found, **(UNWEIGHED if read_head(self.head).reads_whole_answer else {})}
        return facts

    def use(self, folder: Path, rows: Sequence[Example], count: int) -> Usage:
        """Some rows scored by the saved files, and a snippet for the card; at least the one of the card."""
        return use_saved(folder, stock_of(self.head), rows, max(count, 1))


def _scale(scores: Sequence[Scored]) -> dict[str, Any]:
    """Mean and std of the scores of all held-out answers, for the checkpoint; {} where they say none."""
    scale = fit_scale(torch.cat([score.mean.cpu().double() for score in scores]).numpy())
    return {} if scale is None else {ENTRY: scale.as_json()}


def reward_metrics(head: RewardHead, pair: Pair) -> Measures:
    """rewards/*, and what the head says of itself, of every row."""
    scores = {role: sequence_score(head, side) for role, side in pair.sides.items()}
    measures: Measures = {f"rewards/{role}": Measure(score.mean) for role, score in scores.items()}
    measures |= {f"rewards/std_{role}": Measure(score.std) for role, score in scores.items() if score.std is not None}
    for role, side in pair.sides.items():
        measures |= {f"head/{name}_{role}": Measure(values) for name, values in head_facts(head, side).items()}
    if "chosen" in scores and "rejected" in scores:
        difference = scores["chosen"].mean - scores["rejected"].mean
        measures["rewards/margins"] = Measure(difference)
        measures["rewards/accuracies"] = Measure(difference > 0)
    return measures


def head_facts(head: RewardHead, side: Side) -> dict[str, Tensor]:
    """What a head has to say of each answer beside its score; {} for a head that declares no `facts`."""
    own = read_head(head).facts
    if own is None:
        return {}
    assert side.outputs is not None
    return own(torch.where(side.mask[..., None], side.outputs, 0.0), side.mask)


def _scores(
    head: RewardHead, trainer: Trainer, data: TrainingSet
) -> tuple[list[dict[str, Scored]], dict[str, Tensor], list[Pair], list[MarkedAnswer]]:
    """Scores of the answers, micro-batch by micro-batch, the head's facts of all answers, the micro-batches, and the annotated answers."""
    roles = trainer.contract.roles
    found: list[dict[str, Scored]] = []
    facts: dict[str, list[Tensor]] = {}
    pairs: list[Pair] = []
    marked: dict[int, list[MarkedAnswer]] = {}
    with measuring(trainer):
        for part in split_by_budget(data.packed_tokens(roles).tolist(), trainer.precision.micro_tokens):
            pair = detached(trainer.pair(collate(data, part, roles, device=trainer.scorer.device), {}, scored=True))
            pairs.append(pair)
            marked |= {row: _marked(head, data.examples[row], place, pair) for place, row in enumerate(part)}
            found.append({role: sequence_score(head, side) for role, side in pair.sides.items()})
            for side in pair.sides.values():
                for name, values in head_facts(head, side).items():
                    facts.setdefault(name, []).append(values.cpu().double())
    return found, {name: torch.cat(values) for name, values in facts.items()}, pairs, [own for row in sorted(marked) for own in marked[row]]


def _marked(head: RewardHead, example: Example, row: int, pair: Pair) -> list[MarkedAnswer]:
    """The annotated answers of a row of a micro-batch with the scores of their tokens; [] for a head that reads only some tokens."""
    if read_head(head).read_positions is not None:
        return []
    found = []
    for role, side in pair.sides.items():
        answer, response = annotation_of(example, role), example.responses[role]
        assert side.outputs is not None
        if answer is None:
            continue
        outputs, mask = (values[row : row + 1, : len(response.ids)] for values in (side.outputs, side.mask))
        tokens, aspects = token_scores(head, outputs, mask), aspect_scores(head, outputs, mask)
        scores = Scored(tokens.mean[0], None if tokens.std is None else tokens.std[0])
        found.append(join_marks(response, answer, scores, {name: values[0] for name, values in aspects.items()}))
    return found


def _measured(head: RewardHead, loss: LossDeclarations, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Means of the loss's `measures`, {} without any, with intervals over rows (Wilson's for proportions); a row's NaN is left out."""
    if loss.measures is None:
        return {}
    parts = [loss.measures(head, pair) for pair in pairs]
    whole = {name: torch.cat([part[name].cpu().double() for part in parts]).numpy() for name in parts[0]}
    said = {name: values[~np.isnan(values)] for name, values in whole.items()}
    return {
        f"eval_{name}": as_record((wilson if name in loss.proportion_metrics else mean_interval)(values))
        for name, values in said.items()
        if len(values)
    }


def _joined(parts: list[Scored]) -> Scored:
    stds = [part.std for part in parts if part.std is not None]
    return Scored(torch.cat([part.mean for part in parts]).cpu(), torch.cat(stds).cpu() if stds else None)


def measure_ratings(head: Rating, pairs: Sequence[Pair], training: Float[np.ndarray, " N"]) -> dict[str, Interval]:
    """eval_rating_* by name; `training`: places of the ratings that were trained on.

    Fractional ratings count as the nearest of the scale, and ratings nobody gave are left out.
    """
    logits, labels = predict_ratings(pairs)
    report = report_ratings(logits.argmax(1).numpy(), labels.numpy(), dict(enumerate(np.bincount(training.round().astype(int)).tolist())))
    magnitude, spread = (values.tolist() for values in logit_magnitude(logits, labels))
    found = {
        "eval_rating_balanced_accuracy": report.balanced_accuracy,
        "eval_rating_balanced_error": Interval(report.balanced_error, None, None, len(labels)),
        **{f"eval_rating_exact_of_{group}": accuracy for group, accuracy in report.groups.items()},
    }
    for place, accuracy in report.accuracy.items():
        rating = f"{head.lowest + place:g}"
        found[f"eval_rating_exact/{rating}"] = accuracy
        found[f"eval_rating_error_of_class/{rating}"] = report.absolute_error[place]
        if len(report.accuracy) > 1:
            found[f"eval_rating_magnitude/{rating}"] = Interval(magnitude[place], None, None, accuracy.rows)
            if magnitude[place] != 0:
                found[f"eval_rating_relative_std/{rating}"] = Interval(spread[place], None, None, accuracy.rows)
    return found
