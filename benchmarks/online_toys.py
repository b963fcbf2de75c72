"""Toys of online RL, from Python as from the command: does each algorithm learn, and does dense reward need fewer answers?

    python benchmarks/online_toys.py [--quick] [--work build/online-toys] [--only share|delayed]

share: a model of 16 words answers with 16 tokens, the reward is the share of one word: from about 0.06 to above 0.8 within 100 buffers of 64
answers, five seeds of each algorithm; with the same rewards shuffled among the answers, none may pass 0.2.
delayed: answers of 64 tokens, a token earns its share where it follows the one before it; dense PPO reads the reward of every token, terminal PPO
their sum at the end; both have the same three learning rates, tuned on two seeds that are not reported. Compared is the number of answers until
the mean reward of a buffer passes 0.8 of the best one, paired by seed.

Writes benchmarks/results/online-toys.{json,md}. Runs that are done stay done: a stopped script goes on.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, fresh, write
from places import RESULTS, ROOT, describe_processor
from tables import shown
from tokenizers import Tokenizer, models, pre_tokenizers
from toy_rewards import LETTERS
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import finegrain
from finegrain.catalog import load
from finegrain.commands.online import OnlineTraining
from finegrain.commands.settings import Common
from finegrain.data.planted import write_jsonl
from finegrain.generate.sampling import Sampling
from finegrain.online.leash import InLoss, InReward
from finegrain.ops.stats import Interval, mean_interval

REWARDS = ROOT / "benchmarks" / "toy_rewards.py"
ALGORITHMS = ("ppo", "rloo", "grpo", "reinforce-pp")
RATES = (1e-3, 3e-3, 1e-2)
BETA = {"share": 0.01, "delayed": 0.001}
"""Of the leash by toy: in the loss for grpo, else in the reward. The certain answer is 2.8 nats per token away: 0.44 and 0.18 of the best reward."""
ANSWERS = 64
"""Of a buffer: eight prompts, eight answers each."""


def make_model(seed: int) -> tuple[Any, Any]:
    """Two layers of width 32 over 16 words, and their tokenizer, without end token."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(LETTERS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return LlamaForCausalLM(config), PreTrainedTokenizerFast(tokenizer_object=words)


def make_prompts(work: Path, count: int) -> Path:
    """Prompts of four words, the same for every seed."""
    file = work / "prompts.jsonl"
    if not file.exists():
        rng = np.random.default_rng(0)
        write_jsonl(file, [{"prompt": " ".join(rng.choice(list(LETTERS), 4))} for _ in range(count)])
    return file


def train_toy(
    work: Path,
    name: str,
    prompts: Path,
    *,
    seed: int,
    rate: float,
    tokens: int,
    buffers: float,
    per_buffer: int = 8,
    answers: int = 8,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A run of the toy's model by the library's own command, in place of one that was stopped; returns its logged lines.

    buffers: passes over the prompts, of which a buffer has `per_buffer`; settings: further ones of `finegrain.train_online`.
    """
    model, tokenizer = make_model(seed)
    out = fresh(work / "runs" / name)
    finegrain.train_online(
        model,
        prompts,
        out,
        tokenizer=tokenizer,
        sampling=Sampling(answers=answers, max_new_tokens=tokens),
        common=Common(lr=rate, seed=seed, max_length=128, device="cpu"),
        training=OnlineTraining(prompts=per_buffer, epochs=buffers, holdout=0.0, samples=0),
        **settings,
    )
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def run(work: Path, name: str, algorithm: str, reward: str, seed: int, *, rate: float, tokens: int, buffers: int) -> list[dict[str, float]]:
    """The line of every buffer: reward, KL to the start model, seconds."""
    done = work / f"{name}-{algorithm}-{reward}-{rate:g}-{seed}.json"
    if done.exists():
        return json.loads(done.read_text())  # type: ignore[no-any-return]
    lines = train_toy(
        work,
        done.stem,
        make_prompts(work, 8),
        seed=seed,
        rate=rate,
        tokens=tokens,
        buffers=float(buffers),
        reward=f"{REWARDS}:{reward}",
        algorithm=load("algorithm", algorithm)(),
        leash=InLoss(beta=BETA[name]) if algorithm == "grpo" else InReward(beta=BETA[name]),
    )
    found = [{key: line[key] for key in ("buffer", "reward", "kl", "entropy", "step_seconds") if key in line} for line in lines if "buffer" in line]
    done.write_text(json.dumps(found))
    return found


def share(work: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Start, end and first buffer above 0.8 of every algorithm and seed, with the true and the shuffled reward."""
    rows = []
    for algorithm in ALGORITHMS:
        for reward in ("share_of_h", "shuffled_share"):
            for seed in seeds:
                lines = run(work, "share", algorithm, reward, seed, rate=3e-3, tokens=16, buffers=100)
                rewards = [line["reward"] for line in lines]
                first = next((place + 1 for place, value in enumerate(rewards) if value > 0.8), None)
                kl = float(np.mean([line.get("kl", math.nan) for line in lines[-5:]]))
                rows.append(
                    {
                        "algorithm": algorithm,
                        "reward": reward,
                        "seed": seed,
                        "start": rewards[0],
                        "end": float(np.mean(rewards[-5:])),
                        "most": max(rewards),
                        "first_above": first,
                        "kl": kl,
                    }
                )
    return rows


def answers_needed(lines: Sequence[dict[str, float]], target: float) -> float:
    """Answers until a buffer's mean reward passes the target; infinite where none does."""
    return next((ANSWERS * (place + 1) for place, line in enumerate(lines) if line["reward"] > target), math.inf)


def delayed(work: Path, seeds: Sequence[int], tuning: Sequence[int], buffers: int) -> dict[str, Any]:
    """Answers to 0.8 of the best reward, dense and terminal, at each one's best rate."""
    target, arms = 0.8 * 63 / 64, {"dense": "successors", "terminal": "successors_at_the_end"}
    best, trials = {}, {}
    for arm, reward in arms.items():
        scores = {rate: [run(work, "delayed", "ppo", reward, seed, rate=rate, tokens=64, buffers=buffers) for seed in tuning] for rate in RATES}
        mean = {rate: float(np.mean([np.mean([line["reward"] for line in lines]) for lines in many])) for rate, many in scores.items()}
        best[arm], trials[arm] = max(mean, key=mean.__getitem__), mean
    needed = {
        arm: [answers_needed(run(work, "delayed", "ppo", reward, seed, rate=best[arm], tokens=64, buffers=buffers), target) for seed in seeds]
        for arm, reward in arms.items()
    }
    ends = {
        arm: [
            float(np.mean([line["reward"] for line in run(work, "delayed", "ppo", reward, seed, rate=best[arm], tokens=64, buffers=buffers)[-5:]]))
            for seed in seeds
        ]
        for arm, reward in arms.items()
    }
    most = ANSWERS * buffers
    censored = {arm: [min(value, most) for value in values] for arm, values in needed.items()}
    difference = mean_interval([one - other for one, other in zip(censored["terminal"], censored["dense"], strict=True)])
    return {"target": target, "buffers": buffers, "rates": best, "trials": trials, "needed": needed, "ends": ends, "difference": difference.as_json()}


def report(found: dict[str, Any]) -> str:
    """The page."""
    lines = ["# Toys of online RL", "", describe_processor()["processor"] + ".", ""]
    if "share" in found:
        lines += [
            "## The share of one word", "",
            "A buffer has 64 answers of 16 tokens; passes over it as the algorithm has them (ppo 4, others 1); learning rate 0.003, beta 0.01. "
            "Means over seeds; KL in nats per token to the start model.", "",
            "| algorithm | reward | seeds | start | end | largest of any buffer | first buffer above 0.8 (each seed) | KL |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for algorithm in ALGORITHMS:
            for reward in ("share_of_h", "shuffled_share"):
                own = [row for row in found["share"] if (row["algorithm"], row["reward"]) == (algorithm, reward)]
                ends = mean_interval([row["end"] for row in own])
                first = ", ".join("never" if row["first_above"] is None else str(row["first_above"]) for row in own)
                kind, kl = "true" if reward == "share_of_h" else "shuffled", np.mean([row["kl"] for row in own])
                numbers = f"{np.mean([row['start'] for row in own]):.3f} | {shown(ends)} | {max(row['most'] for row in own):.3f}"
                lines.append(f"| {algorithm} | {kind} | {len(own)} | {numbers} | {first} | {kl:.3f} |")
        lines.append("")
    if "delayed" in found:
        own = found["delayed"]
        lines += [
            "## Dense and terminal reward", "",
            f"PPO, 64 tokens, at most {own['buffers']} buffers of 64 answers; target: a mean reward above {own['target']:.3f}, 0.8 of the best.",
            f"Learning rates of {', '.join(f'{rate:g}' for rate in RATES)} tuned on two other seeds: dense {own['rates']['dense']:g}, "
            f"terminal {own['rates']['terminal']:g}.", "",
            "| reward | answers until the target, each seed | mean reward of the last five buffers |", "| --- | --- | --- |",
        ]  # fmt: skip
        for arm in ("dense", "terminal"):
            needed = ", ".join("not reached" if math.isinf(value) else f"{value:.0f}" for value in own["needed"][arm])
            lines.append(f"| {arm} | {needed} | {shown(mean_interval(own['ends'][arm]))} |")
        whole = Interval(**own["difference"])
        lines += [
            "",
            f"Terminal less dense, paired by seed, a run that never reaches the target counted as {64 * own['buffers']} answers: {shown(whole, 0)}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """All toys that are asked for."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two seeds, and what cannot be learnt in so few buffers is not")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "online-toys")
    parser.add_argument("--only", choices=("share", "delayed"))
    asked = parser.parse_args()
    (asked.work / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    seeds = (1, 2) if asked.quick else (1, 2, 3, 4, 5)
    found: dict[str, Any] = {}
    if asked.only in (None, "share"):
        found["share"] = share(asked.work, seeds)
    if asked.only in (None, "delayed"):
        found["delayed"] = delayed(asked.work, seeds, (11, 12), 20 if asked.quick else 100)
    if asked.quick:
        print(report(found))
    else:
        write(asked.out, "online-toys", found, report(found))


if __name__ == "__main__":
    main()
