"""What the algorithms of online reinforcement learning share: settings of an update, and the records made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from finegrain.checked import NonNegativeFloat, PositiveInt, checked
from finegrain.errors import UsageError
from finegrain.online.aggregate import Aggregate, TokenMean
from finegrain.online.appo import APPO, FullMask, TokenMask
from finegrain.online.combine import Apart, Combination, SumAdvantages, SumRewards
from finegrain.online.leash import Leash
from finegrain.online.pama import PAMA
from finegrain.online.policy_loss import PAMA_NEEDS_CLIP, Critic, NoCritic, PolicyLoss
from finegrain.online.select import KeepAll, Selection
from finegrain.online.stages import Advantage, Stages
from finegrain.online.surrogates import Clip, Surrogate
from finegrain.online.transforms import Transforms
from finegrain.online.whiten import Unwhitened, Whitening


@dataclass(frozen=True, kw_only=True)
@checked
class Algorithm:
    """Settings that every algorithm has; each gives its own defaults."""

    learning_rate: ClassVar[float]
    """The default rate of the policy."""
    default_leash: ClassVar[Leash]
    default_advantage: ClassVar[Advantage]

    epochs: PositiveInt = 1
    """Passes over a buffer."""
    minibatches: PositiveInt = 1
    """Updates per pass."""
    surrogate: Surrogate = field(default_factory=Clip)
    """Loss of a token by its ratio to the policy that sampled."""
    aggregate: Aggregate = field(default_factory=TokenMean)
    """How losses of tokens are averaged."""
    critic: Critic = field(default_factory=NoCritic)
    """Whose values an advantage with values reads."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the entropy bonus, per nat; 0: none."""
    combination: Combination = field(default_factory=SumRewards)
    """How several rewards become one."""
    transforms: Transforms = field(default_factory=Transforms)
    """Penalties, scale, clips and whitening of rewards."""
    whitening: Whitening = field(default_factory=Unwhitened)
    """What is done to the advantages over all tokens of a buffer."""

    @property
    def updates(self) -> int:
        """Updates per buffer."""
        return self.epochs * self.minibatches

    def stages(
        self, advantage: Advantage | None = None, leash: Leash | None = None, mask: TokenMask | None = None, selection: Selection | None = None
    ) -> Stages:
        """The stages, with an advantage or a leash in place of the algorithm's own; raises UsageError for values without a critic."""
        chosen = self.default_advantage if advantage is None else advantage
        if chosen.reads_values and isinstance(self.critic, NoCritic):
            raise UsageError(f"{type(chosen).__name__} reads values: choose algorithm.critic:shared-critic or algorithm.critic:separate-critic")
        if isinstance(self.combination, PAMA) and not isinstance(self.surrogate, Clip):
            raise UsageError(PAMA_NEEDS_CLIP)
        return Stages(
            combination=self.combination,
            transforms=self.transforms,
            leash=self.default_leash if leash is None else leash,
            advantage=chosen,
            whitening=self.whitening,
            by_token=self.surrogate.keeps_density,
            mask=FullMask() if mask is None else mask,
            selection=KeepAll() if selection is None else selection,
        )

    def policy_loss(self, stages: Stages, *, temperature: float = 1.0, rewards: Sequence[str] = ("reward",)) -> PolicyLoss:
        """The objective of the policy's updates; a critic that the stages do not read is not trained. `rewards`: their names."""
        combination = stages.combination
        return PolicyLoss(
            objectives=tuple(rewards) if isinstance(combination, Apart) else ("reward",),
            mixing=combination if isinstance(combination, Apart) and not isinstance(combination, SumAdvantages) else None,
            surrogate=self.surrogate,
            aggregate=stages.mask.aggregate if isinstance(stages.mask, APPO) else self.aggregate,
            leash=stages.leash,
            critic=self.critic if stages.advantage.reads_values else NoCritic(),
            entropy=self.entropy,
            single=self.updates == 1,
            learning_rate=self.learning_rate,
            temperature=temperature,
        )
