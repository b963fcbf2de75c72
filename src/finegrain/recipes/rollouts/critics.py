"""Critics of an online run: a value head on the policy, or a model of its own with an optimiser of its own."""

import copy

from torch import nn

from finegrain.commands.online import OnlineSettings
from finegrain.errors import ModelError
from finegrain.models.fingerprint import tokenizer_fingerprint
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.probe import make_scorer
from finegrain.models.scorer import causal_lm, release_unread_vocabulary, silence_dropout
from finegrain.online.policy_loss import SeparateCritic
from finegrain.online.value_loss import ValueLoss
from finegrain.recipes.session import Session
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer
from finegrain.train.optim import scaled_default
from finegrain.train.read_contract import contract_of
from finegrain.train.trainer import make_trainer


def open_critic(session: Session, asked: OnlineSettings, critic: SeparateCritic, *, values: int, steps: int) -> Trainer:
    """A model of its own that learns what answers will bring; it starts from the policy's start model, or from another checkpoint."""
    model = _load_start(session, asked).to(session.device)
    silence_dropout(model)
    contract = contract_of(ValueLoss(learning_rate=critic.learning_rate, clip=critic.clip, values=values), session.seed)
    scorer, _ = make_scorer(model, longest=session.max_length, precision=session.precision)
    width = int(causal_lm(model).config.get_text_config().hidden_size)
    scorer.value_head = make_value_head(session, width, contract.values)
    release_unread_vocabulary(scorer.model)
    rate = critic.learning_rate if asked.optim.algorithm == "sgd" else scaled_default(critic.learning_rate, width)
    return make_trainer(scorer, contract, TrainingSet([]), session.precision, lambda pair: {}, asked.optim, rate=rate, steps=steps)


def _load_start(session: Session, asked: OnlineSettings) -> nn.Module:
    """The checkpoint that --critic names, else the start model again: all of its weights train."""
    if asked.critic is None and session.policy.in_memory:
        copied: nn.Module = copy.deepcopy(causal_lm(session.policy.model)).requires_grad_(True)
        return copied
    source = asked.critic or asked.model
    critic = load_policy(source, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)
    if tokenizer_fingerprint(critic.tokenizer) != tokenizer_fingerprint(session.policy.tokenizer):
        raise ModelError(f"--critic {source} has another tokenizer than the policy, so it cannot read its tokens")
    model: nn.Module = critic.model
    return model


def make_value_head(session: Session, width: int, values: int) -> nn.Linear:
    """Starts at 0 everywhere: the first advantages are the rewards themselves [choice]."""
    head = nn.Linear(width, values, dtype=master_dtype(session.precision.name))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head.to(session.device)
