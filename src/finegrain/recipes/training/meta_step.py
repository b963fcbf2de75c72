"""MetaRM in the training loop: before every step the parameters rise to where samples of the policy are told apart better."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from finegrain.data.gate.settings import Gate
from finegrain.data.tokenise import Tokenise
from finegrain.data.unlabelled import load_samples
from finegrain.errors import UsageError
from finegrain.models.packing import Group, make_slots
from finegrain.models.score import make_group, split_by_budget
from finegrain.models.scorer import Request
from finegrain.recipes.session import Session
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.rewards.meta_rm import MetaRM, discrimination, displace
from finegrain.train.distributed import rank, sum_gradients, world
from finegrain.train.loop import Trainer
from finegrain.train.tally import Measure, Measures
from finegrain.types import Json, Side


@dataclass(frozen=True)
class Rise:
    """Where the gradient of a step is taken: eta times the gradient of J away, over the prompts whose turn it is."""

    head: RewardHead
    groups: Sequence[Group]
    """Prompts, each with the samples that branch from it."""
    settings: MetaRM
    seed: int
    report: Json = field(default_factory=dict)
    """Of the samples, for run.json."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with one sample."""
        return max(len(group.prompt) + max(len(branch.ids) for branch in group.branches) for group in self.groups)

    @contextmanager
    def __call__(self, trainer: Trainer, step: int) -> Iterator[Measures]:
        """The parameters stand at theta' inside. meta/discrimination: J at theta; meta/rise: the distance to theta'."""
        parameters = trainer.parameters()
        wanted = self.turn(step)
        own = [self.groups[place] for place in wanted[rank() :: world()]]
        devices = [trainer.scorer.device] if trainer.scorer.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # a head that draws noise draws the same in the step, with samples or without
            found = [self._climb(trainer, part, len(wanted)) for part in self._parts(trainer, own)]
        sum_gradients(parameters)
        slopes = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad = None
        length = self.settings.eta * torch.nn.utils.get_total_norm(slopes)
        measures: Measures = {"meta/discrimination": Measure(torch.cat([slopes[0].new_zeros(0), *found])), "meta/rise": Measure(length)}
        with displace(parameters, slopes, self.settings.eta):
            del slopes
            yield measures

    def turn(self, step: int) -> list[int]:
        """Places of the prompts of a step: every prompt once before any comes again, in an order of its own each time."""
        count = len(self.groups)
        size = min(self.settings.prompts, count)
        numbers = range(step * size, (step + 1) * size)
        return [int(np.random.default_rng([self.seed, number // count]).permutation(count)[number % count]) for number in numbers]

    def _parts(self, trainer: Trainer, groups: Sequence[Group]) -> list[list[Group]]:
        return [[groups[place] for place in part] for part in split_by_budget([group.tokens for group in groups], trainer.precision.micro_tokens)]

    def _climb(self, trainer: Trainer, groups: Sequence[Group], count: int) -> Tensor:
        """Add the gradient of these prompts' share of the mean J; returns their J."""
        values = torch.cat([discrimination(rewards[None]) for rewards in self.rewards(trainer, groups)])
        (values.sum() / count).backward()  # type: ignore[no-untyped-call]
        return values.detach()

    def rewards(self, trainer: Trainer, groups: Sequence[Group]) -> list[Tensor]:
        """(k,) scores of each prompt's samples."""
        with trainer.precision.autocast():
            outputs = trainer.scorer(groups, Request(False, outputs=trainer.scorer.head)).outputs
        slot = make_slots([[branch.mask] for group in groups for branch in group.branches], 0, trainer.scorer.device)
        spread = slot.spread(outputs)
        scores = sequence_score(self.head, Side(logp=torch.zeros_like(spread[..., 0]), mask=slot.mask, outputs=spread)).mean
        return list(torch.split(scores, [len(group.branches) for group in groups]))


def check_meta(head: RewardHead, settings: MetaRM, *, frozen: bool) -> None:
    """Refuse what the samples cannot be scored with, before anything is loaded."""
    if not settings.samples:
        raise UsageError("meta:meta-rm reads samples of the current policy; name their file with --meta.samples FILE")
    if frozen:
        raise UsageError("--frozen keeps features of the labelled answers alone, and meta:meta-rm reads samples too; drop one of them")
    if read_head(head).token_columns:
        raise UsageError(f"{type(head).__name__} reads columns that are made of labelled answers, which samples do not have; name another head")


def rise_of(session: Session, head: RewardHead, settings: MetaRM, gate: Gate) -> Rise:
    """The samples of the settings, tokenised as the data are; what was left out is told and stands in the run's record."""
    loaded = load_samples(settings.samples, session.policy.tokenizer, settings=Tokenise(max_length=session.max_length), gate=gate)
    for line in loaded.report["messages"]:
        session.say(line)
    groups = [make_group(example, tuple(example.responses)) for example in loaded.examples]
    return Rise(head, groups, settings, session.seed, loaded.report)
