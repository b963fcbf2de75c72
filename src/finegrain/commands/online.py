"""Settings of `finegrain online`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finegrain.checked import (
    Epochs,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ShareBelowOne,
    checked,
)
from finegrain.commands.settings import Common
from finegrain.credit.reward_signals import RolloutCredit, Terminal
from finegrain.data.gate.settings import Gate
from finegrain.errors import UsageError
from finegrain.generate.sampling import Sampling
from finegrain.models.lora import Lora
from finegrain.online.appo import FullMask, TokenMask
from finegrain.online.leash import Leash
from finegrain.online.mgda import MGDA
from finegrain.online.pama import PAMA
from finegrain.online.references import ReferenceChoice, StartModel
from finegrain.online.select import KeepAll, Selection
from finegrain.online.stages import Advantage
from finegrain.ops.aggregate import MeanReward, OfOneAnswer
from finegrain.ops.baseline import Contrast, Difference
from finegrain.train.optim import Optim


@dataclass(frozen=True, kw_only=True)
@checked
class OnlineTraining:
    """How long a run lasts, its buffers, evaluation and output."""

    prompts: PositiveInt = 8
    """Prompts of a buffer, over all processes; each gets --sampling.answers answers."""
    epochs: Epochs = 1.0
    """Passes over the prompts."""
    micro_tokens: PositiveInt | None = None
    """Tokens of one forward pass; memory grows with it, results do not change. By default 2048, or more where the activations fit."""
    holdout: ShareBelowOne = 0.1
    """Share of the prompts (at most 64) kept for evaluation when --eval is not given; 0 keeps none."""
    eval_every: NonNegativeInt = 0
    """Buffers between evaluations on the held-out prompts, before the first and after the last one too; 0 evaluates before and after the run only."""
    eval_temperature: NonNegativeFloat = 0.0
    """Of the answers to held-out prompts; 0 takes the most likely tokens."""
    keep: Literal["last", "best"] = "last"
    """Which model is written at the end: the last one, or the one with the highest held-out reward among those that were evaluated."""
    save_every: NonNegativeInt = 0
    """Updates between checkpoints, within a buffer too; 0 saves on Ctrl-C only, and where a reward fails or a step diverges."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    train_only: str | None = None
    """Regular expression: parameters whose names have no match stay as they are. By default all train."""
    samples: NonNegativeInt = 5
    """Prompts answered before and after training, and prompts of every buffer whose answers are kept for the report."""
    track: str = "none"
    """none, tensorboard, or another tracker by accelerate's name."""
    trust_remote_code: bool = False
    """Run code that comes with a model; never do this for a model you have not read."""

    def __post_init__(self) -> None:
        if self.keep == "best" and not self.eval_every:
            raise UsageError("--training.keep best: there are no evaluations while training to go by; give --training.eval-every N")


@dataclass(frozen=True, kw_only=True)
@checked
class OnlineSettings:
    """Train a policy on its own sampled answers, with a reward that may say where an answer is good or bad.

    algorithm:NAME is the method; credit: says how a reward model's score comes to the tokens; advantage: and leash: take the place of the
    algorithm's own.
    """

    model: str
    """Checkpoint folder or Hub name of the policy."""
    data: str
    """Prompts: rows {"prompt": text or messages} with any further columns for reward functions, or any file that training reads."""
    out: Path
    """Run directory: the trained model, run.json, metrics.jsonl, rollouts.jsonl, samples.jsonl."""
    reward: tuple[str, ...]
    """What judges answers; several (--reward A --reward B) are summed.

    Reward models, functions as file.py:name (signature of TRL's GRPOTrainer), columns as column:NAME, measures of text as measure:NAME (fkgl, fre,
    similarity, length, sari), text classifiers as classifier:PATH. With algorithm.combination:sum-advantages, mgda or pama each has values and
    advantages of its own.
    """
    reward_weights: tuple[float, ...] = ()
    """A weight per --reward; by default 1 each."""
    reward_timeout: PositiveFloat | None = None
    """Seconds that a function may take for a buffer; beyond them the run stops, its state saved. By default as long as it likes.

    With a limit functions run in a thread, where Python allows no `signal.alarm`.
    """
    reward_reference: str | None = None
    """The model that policies among the rewards were trained from: their reward is then their log-ratio to it."""
    reward_beta: PositiveFloat = 0.1
    """Scale of that log-ratio."""
    baseline: tuple[Path, ...] = ()
    """Files of `finegrain score baseline`, each made with one of the rewards: its prompt's baseline is subtracted from it before anything else."""
    contrast: Contrast = field(default_factory=Difference)
    """How a reward is compared with its baseline."""
    gold: tuple[str, ...] = ()
    """Rewards that are logged and never train: what the --reward stands for."""
    algorithm: Any
    credit: RolloutCredit = field(default_factory=Terminal)
    """How a reward model's score of an answer comes to its tokens: terminal (at the last one), head, prefix-difference, attention or uniform."""
    aggregate: OfOneAnswer = field(default_factory=MeanReward)
    """One reward of a score with members or a standard deviation."""
    advantage: Advantage | None = None
    """By default the algorithm's."""
    leash: Leash | None = None
    """What keeps the policy near the reference; by default the algorithm's."""
    mask: TokenMask = field(default_factory=FullMask)
    """Which tokens train the policy: all, or those in segments whose reward agrees with their advantage (appo)."""
    selection: Selection = field(default_factory=KeepAll)
    """Which answers train, by their reward among those to their prompt (PF-PPO): all, or best-only, best-random, best-worst, power and others."""
    filters: bool = False
    """Do not train: sample from the model, and print for each selection how well the reward tells what --gold says of the answers it draws (R2)."""
    filter_buffers: PositiveInt = 4
    """Buffers that --filters samples."""
    reference: ReferenceChoice = field(default_factory=StartModel)
    """What the leash is tied to."""
    watch: tuple[str, ...] = ()
    """Further checkpoints whose distance (KL) is logged."""
    critic: str | None = None
    """Checkpoint that a separate critic starts from; by default the policy's."""
    sampling: Sampling = field(default_factory=Sampling)
    kl_stop: PositiveFloat | None = None
    """KL, nats per token, of an update from the policy that sampled, beyond which the rest of the buffer is skipped; by default nothing is."""
    common: Common = field(default_factory=Common)
    training: OnlineTraining = field(default_factory=OnlineTraining)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if not self.reward:
            raise UsageError("--reward names nothing; give a reward model, a function as file.py:name, or a column as column:NAME")
        if self.filters and not self.gold:
            raise UsageError("--filters compares the reward with a true score of the same answers: name one by --gold, e.g. --gold verify.py:correct")
        if self.reward_weights and len(self.reward_weights) != len(self.reward):
            raise UsageError(f"{len(self.reward_weights)} --reward-weights for {len(self.reward)} rewards; give one per reward")
        if self.reward_weights and isinstance(self.algorithm.combination, (MGDA, PAMA)):
            raise UsageError("--reward-weights: this combination finds the weights of the rewards itself; leave them out")
        if not self.baseline and self.contrast != Difference():
            raise UsageError("contrast: compares rewards with baselines; give --baseline FILE (finegrain score baseline)")
        if self.sampling.max_new_tokens >= self.common.max_length:
            raise UsageError(
                f"--sampling.max-new-tokens {self.sampling.max_new_tokens} leaves no room for a prompt within --max-length {self.common.max_length}"
            )
        self.sampling.check_for_training()
