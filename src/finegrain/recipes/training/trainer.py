"""What a job trains: a head where its objective has one, the sharded or whole model, its optimiser and rate, as one trainer."""

from dataclasses import replace
from typing import Any

import torch

from finegrain.errors import UsageError
from finegrain.models.load import master_dtype
from finegrain.models.reference import describe_live_reference
from finegrain.models.reward_head import head_module, linear_head
from finegrain.models.scorer import Scorer, causal_lm, release_unread_vocabulary
from finegrain.recipes.session import Session, hidden_size
from finegrain.recipes.training.artifact import reward_head_facts
from finegrain.recipes.training.job import Job
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import DIVERGED, Contract
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim, scaled_default
from finegrain.train.sharding import load_full_parameters
from finegrain.train.trainer import make_trainer
from finegrain.types import Json

LORA_RATE = 10.0
"""LoRA's default rate is this many times that of full fine-tuning (the field's rule of thumb; TRL's documentation)."""


def peak_rate(session: Session, asked: float | None, optim: Optim, contract: Contract) -> float:
    """The learning rate that was asked for, or the objective's own at this width."""
    if asked is not None:
        return asked
    if optim.algorithm == "sgd":
        raise UsageError("default rates are AdamW's; give SGD one: --lr")
    adapted = causal_lm(session.policy.model) is not session.policy.model
    return scaled_default(contract.learning_rate, hidden_size(session)) * (LORA_RATE if adapted else 1.0)


def attach_head(session: Session, job: Job, contract: Contract, scorer: Scorer) -> Json:
    """A head of the objective's outputs, fresh or as a reward model's was; the vocabulary's head is frozen where nothing reads it.

    Returns what run.json says of the head.
    """
    dtype, facts = master_dtype(session.precision.name), reward_head_facts(contract)
    if contract.make_head is not None:
        torch.manual_seed(session.seed)  # a head's own module may draw noise in training; checkpoints keep the generator's state
    scorer.head = head_module(contract.make_head, hidden_size(session), contract.outputs, seed=session.seed, dtype=dtype).to(scorer.device)
    if job.start_head is not None:
        own, trained = scorer.head.state_dict(), job.start_head.state_dict()
        scorer.head.load_state_dict({name: tensor for name, tensor in trained.items() if name in own})
        left = " less its bias, which no difference of scores shows" if set(trained) - set(own) else ""
        facts["start_head"] = "trained"
        session.say(f"head: goes on from the reward model's{left}")
    elif job.from_reward_model:
        facts["start_head"] = "fresh"
        session.say("head: a fresh one, since the reward model's is of another kind than the one asked for")
    lm = causal_lm(session.policy.model)
    if contract.frozen_backbone:
        session.policy.model.requires_grad_(False)
    if contract.action_value is not None and contract.action_value.fresh:
        words = lm.get_output_embeddings().weight.shape[0]
        scorer.q_head = linear_head(hidden_size(session), words, seed=session.seed + 1, dtype=dtype).to(scorer.device)
    return facts


def build_modules(session: Session, contract: Contract) -> Contract:
    """The contract with the modules that an objective makes for a model's width, drawn by their own seed."""
    config = causal_lm(session.policy.model).config.get_text_config()
    if contract.reading:
        torch.manual_seed(session.seed)  # a reader may draw noise in training; checkpoints keep the generator's state
    return contract.sized(int(config.num_hidden_layers), hidden_size(session), session.seed)


def build_trainer(session: Session, job: Job, contract: Contract, data: TrainingSet, rate: float, steps: int) -> Trainer:
    """The trainer of `steps` steps with the peak learning rate `rate`; from here on a sharded model has no whole parameters."""
    scorer = session.scorer
    assert scorer is not None
    if contract.outputs and "logp" not in contract.needs:  # here, for segments of entropies were made with it
        release_unread_vocabulary(session.policy.model, keep=session.policy.in_memory)
    if contract.live_reference:
        session.say(describe_live_reference(scorer))
        session.usage.notes.append(describe_live_reference(scorer))
    if contract.unbounded:
        words = f"{contract.name} has no lower bound: {contract.unbounded}; the run stops if the loss of a step falls below {DIVERGED:g}"
        session.say(words)
        session.usage.notes.append(words)
    if contract.gradient is not None:
        words = f"gradient rule of {contract.name}: {contract.gradient_cost}"
        session.say(words)
        session.usage.notes.append(words)
    metrics = job.artifact.metrics(contract)
    return make_trainer(scorer, contract, data, session.precision, metrics, job.optim, rate=rate, steps=steps, sharded=job.training.shard)


def unshard(session: Session, trainer: Trainer, shell: Any) -> Trainer:
    """The trainer and the session's policy with whole parameters after sharded training: for evaluation, answers and export."""
    session.scorer = load_full_parameters(shell, trainer.scorer)
    session.policy = replace(session.policy, model=shell)
    return replace(trainer, scorer=session.scorer)
