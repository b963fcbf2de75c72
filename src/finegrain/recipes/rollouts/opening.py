"""An online run before anything is written: its settings checked, its model, prompts and rewards read."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finegrain.commands.online import OnlineSettings
from finegrain.configure import to_json, to_kebab
from finegrain.errors import UsageError
from finegrain.files import cache_folder
from finegrain.models.fingerprint import checkpoint_folders, folders_fingerprint
from finegrain.models.load import try_saving
from finegrain.models.load_errors import explain_load_errors
from finegrain.online.appo import APPO, NEEDS_DENSE
from finegrain.online.groups import GreedyBaseline, GroupComparison
from finegrain.online.macro import GivenSegments, MacroGAE
from finegrain.online.policy_loss import SeparateCritic
from finegrain.online.stages import Stages
from finegrain.ops.aggregate import MeanReward, reads_batch
from finegrain.recipes.rollouts.baselines import PromptBaselines, open_baselines
from finegrain.recipes.rollouts.prompts import Prompt, read_prompts, split_prompts
from finegrain.recipes.rollouts.references import list_paths
from finegrain.recipes.rollouts.rewards import Rewards, open_rewards
from finegrain.recipes.session import Session, open_session
from finegrain.recipes.training.reading import train_only
from finegrain.recipes.training.trainer import peak_rate
from finegrain.run_record import RunRecord
from finegrain.runs import RunDirectory
from finegrain.train.contract import Contract
from finegrain.train.read_contract import contract_of
from finegrain.types import Json


@dataclass(frozen=True)
class OnlineOpened:
    """A run with its model, prompts and rewards, checked; nothing is written yet."""

    asked: OnlineSettings
    settings: Json
    """The same as JSON, for run.json."""
    session: Session
    prompts: list[Prompt]
    held_out: list[Prompt]
    rewards: Rewards
    gold: Rewards | None
    baselines: PromptBaselines | None
    stages: Stages
    contract: Contract
    rate: float
    """Peak learning rate."""
    directory: RunDirectory
    record: RunRecord


def open_run(asked: OnlineSettings, model: Any, tokenizer: Any) -> OnlineOpened:
    """Check the settings, load the model, the prompts and the rewards."""
    settings, directory = to_json(asked), RunDirectory(asked.out)
    if not (asked.common.dry_run or asked.filters):
        directory.check_apart(_sources(asked))
        directory.check(settings, resume=asked.common.resume)
    session = open_session(
        model,
        asked.common,
        seed=asked.common.seed,
        tokenizer=tokenizer,
        lora=asked.lora,
        micro_tokens=asked.training.micro_tokens,
        trust_remote_code=asked.training.trust_remote_code,
    )
    trained = train_only(session, asked.training.train_only)
    _check_saving(session)
    stages = asked.algorithm.stages(asked.advantage, asked.leash, asked.mask, asked.selection)
    _check_stages(asked, stages)
    if asked.kl_stop is not None and asked.algorithm.updates == 1:
        session.say("--kl-stop: a buffer has one update, before which the policy is the one that sampled; nothing is ever left out")
    prompts, held_out, facts = _read_prompts(session, asked)
    rewards = _open_rewards(session, asked, asked.reward, asked.reward_weights or None)
    if isinstance(stages.mask, APPO) and not any(one.on_tokens for one in rewards.rewards):
        raise UsageError(NEEDS_DENSE)
    loss = asked.algorithm.policy_loss(stages, temperature=asked.sampling.temperature, rewards=rewards.names)
    contract = contract_of(loss, asked.common.seed)
    gold = _open_rewards(session, replace(asked, aggregate=MeanReward()), asked.gold, None) if asked.gold else None
    baselines = open_baselines(asked.baseline, asked.contrast, rewards, prompts, session.policy.tokenizer)
    own = rewards.describe() + ([] if baselines is None else baselines.describe())
    for line in (*own, *(() if gold is None else [f"gold, never trained on: {line}" for line in gold.describe()])):
        session.say(line)
    rate = peak_rate(session, asked.common.lr, asked.optim, contract)
    judged = rewards.facts() | ({} if baselines is None else {"baselines": baselines.files})
    record = RunRecord(command="online", settings=settings).plus({**facts, **trained, "rewards": judged})
    if gold is not None:
        record = record.plus({"gold_rewards": gold.facts()})
    if beside := {path: folders_fingerprint(checkpoint_folders(path), cache_folder()) for path in _beside(asked, stages)}:
        record = record.plus({"references": beside})
    return OnlineOpened(asked, settings, session, prompts, held_out, rewards, gold, baselines, stages, contract, rate, directory, record)


def _check_stages(asked: OnlineSettings, stages: Stages) -> None:
    """Stops on stages that this command cannot give what they read."""
    if isinstance(stages.advantage, GroupComparison) and asked.sampling.answers == 1:
        name = f"advantage:{to_kebab(type(stages.advantage).__name__)}"
        raise UsageError(f"{name} compares the answers to one prompt, and --sampling.answers is 1; give at least 2, or take advantage:returns")
    if isinstance(stages.advantage, GreedyBaseline) and asked.baseline:
        raise UsageError(
            "advantage:greedy-baseline compares with the policy's own greedy answer, and --baseline with a fixed sampler's; take one of them"
        )
    if isinstance(stages.advantage, GreedyBaseline) and reads_batch(asked.aggregate):
        raise UsageError("advantage:greedy-baseline scores one answer alone, and this aggregate takes the least over a whole buffer; take per-sample")
    if isinstance(stages.advantage, MacroGAE) and isinstance(stages.advantage.termination, GivenSegments):
        raise UsageError("advantage.termination:given-segments is for Python: no reward of this command cuts the answers; take windows or perplexity")
    if asked.critic is not None and not (stages.advantage.reads_values and isinstance(asked.algorithm.critic, SeparateCritic)):
        raise UsageError("--critic names what a critic of its own starts from, and this run has none: add algorithm.critic:separate-critic")


def _open_rewards(session: Session, asked: OnlineSettings, sources: Sequence[str], weights: Sequence[float] | None) -> Rewards:
    return open_rewards(
        sources,
        weights,
        runtime=lambda: session.runtime,
        max_length=session.max_length,
        credit=asked.credit,
        aggregate=asked.aggregate,
        reference=asked.reward_reference,
        beta=asked.reward_beta,
        timeout=asked.reward_timeout,
    )


def _read_prompts(session: Session, asked: OnlineSettings) -> tuple[list[Prompt], list[Prompt], Json]:
    room = asked.sampling.max_new_tokens
    prompts, report = read_prompts(session, asked.data, limit=asked.common.limit, room=room, gate=asked.gate)
    facts: Json = {"data": report}
    if asked.common.eval is not None:
        held_out, facts["eval_data"] = read_prompts(session, asked.common.eval, limit=None, room=room, gate=asked.gate)
        words: tuple[str, ...] = ()
    else:
        prompts, held_out, words = split_prompts(prompts, asked.training.holdout, asked.common.seed)
    session.say(f"prompts: {len(prompts)} to train, {len(held_out)} held out")
    for line in words:
        session.say(line)
    return prompts, held_out, {**facts, "holdout_words": list(words)}


def _check_saving(session: Session) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="finegrain-") as folder,
        explain_load_errors(f"{session.policy.source} could not be saved after training"),
    ):
        try_saving(session.policy, Path(folder))


def _sources(asked: OnlineSettings) -> list[tuple[str, str]]:
    """What the run reads, beside the option that names it."""
    found = [("model", asked.model), ("data", asked.data), ("eval", asked.common.eval or ""), ("critic", asked.critic or "")]
    found += [("reference", path) for path in list_paths(asked.reference)]
    found += [("baseline", str(file)) for file in asked.baseline]
    return found + [("reward", source) for source in (*asked.reward, *asked.gold)] + [("watch", source) for source in asked.watch]


def _beside(asked: OnlineSettings, stages: Stages) -> list[str]:
    """Checkpoints that are read beside the policy's: of the leash, watched ones, the critic's start."""
    found = [*asked.watch, *([] if asked.critic is None else [asked.critic])]
    if stages.reads_reference:
        found += list_paths(asked.reference)
    return [path for path in dict.fromkeys(found) if Path(path).is_dir()]
