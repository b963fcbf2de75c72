"""Dense against terminal reward from one scorer under one RL: answers needed to reach a target true score; and MA-RLHF's speed-up by n.

    python benchmarks/dense_or_terminal.py [--quick] [--work build/dense-or-terminal]

Answers are 24 words of 16, of which four are good and four bad (`toy_rewards.mean_quality`, the gold that no policy sees). Reward models are trained
from scratch on 1,500 pairs by gold: `sequence` reads the last token, `segment` the ends of segments. PPO is the same in all arms; what differs is
where the scorer's reward stands. `uniform` spreads it evenly without looking at anything: dense, but no information; a gain of an arm over terminal
that uniform has too is none of its credit. The segments' arm has a terminal one on its own scorer. MA-RLHF's arms are terminal with macro actions of
n tokens.

Every arm has the same learning rates to choose from, tuned on two seeds that are not reported, by the mean gold over all buffers; compared is the
number of answers until a buffer's mean gold passes the target, five seeds, paired with terminal; a run that never does counts as all its answers.
Writes benchmarks/results/dense-or-terminal.{json,md}. Runs that are done stay done: a stopped script goes on.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from online_toys import LETTERS, REWARDS, make_model, train_toy
from places import RESULTS, ROOT, describe_processor
from tables import shown
from toy_rewards import mean_quality

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.credit.reward_signals import Attention, Head, PrefixDifference, RolloutCredit, Terminal, Uniform
from finegrain.data.planted import write_jsonl
from finegrain.online.appo import APPO, FullMask, TokenMask
from finegrain.online.leash import InReward
from finegrain.online.macro import MacroGAE, Windows
from finegrain.online.ppo import PPO
from finegrain.ops.stats import mean_interval
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence as LastToken
from finegrain.train.optim import Optim

TOKENS, PROMPTS, ANSWERS, PAIRS = 24, 8, 8, 1500
RATES, TUNING, BUFFERS = [3e-3, 1e-2], [101, 102], [12]
TARGET = 0.4
HEADS = {"sequence": LastToken(), "segment": Segment()}


@dataclass(frozen=True)
class Arm:
    """Where the reward stands."""

    beside: str | None = "terminal"
    """The arm that it is compared with."""
    scorer: str = "sequence"
    credit: RolloutCredit = field(default_factory=Terminal)
    mask: TokenMask = field(default_factory=FullMask)
    macro: int | None = None


ARMS = {
    "terminal": Arm(beside=None),
    "uniform": Arm(credit=Uniform()),
    "r3hf": Arm(credit=PrefixDifference()),
    "abc": Arm(credit=Attention()),
    "asr": Arm(credit=PrefixDifference(), mask=APPO()),
    "segment-terminal": Arm(scorer="segment"),
    "segment": Arm(beside="segment-terminal", scorer="segment", credit=Head()),
    "macro-2": Arm(macro=2),
    "macro-5": Arm(macro=5),
    "macro-12": Arm(macro=12),
}


def make_inputs(work: Path) -> None:
    """Prompts, pairs and both reward models, where they are not there yet."""
    rng = np.random.default_rng(0)
    draw = lambda count: " ".join(rng.choice(list(LETTERS), count))
    if not (work / "prompts.jsonl").exists():
        pairs = []
        for _ in range(PAIRS):
            texts = sorted((draw(TOKENS), draw(TOKENS)), key=lambda text: mean_quality([[LETTERS.index(word) for word in text.split()]])[0])
            pairs.append({"prompt": draw(4), "chosen": texts[1], "rejected": texts[0]})
        write_jsonl(work / "pairs.jsonl", pairs)
        write_jsonl(work / "prompts.jsonl", [{"prompt": draw(4)} for _ in range(PROMPTS)])
    start = work / "start"
    if not (start / "config.json").exists():
        model, tokenizer = make_model(0)
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
    for name, head in HEADS.items():
        if not (work / name / "report.html").exists():
            finegrain.train_reward_model(
                str(start),
                work / "pairs.jsonl",
                work / name,
                head=head,
                loss=BradleyTerry(),
                common=Common(lr=3e-3, device="cpu", max_length=64),
                training=Training(holdout=0.1, examined=0, epochs=2.0, batch_size=32),
                optim=Optim(embedding_lr=3e-3),
            )


def run(work: Path, name: str, rate: float, seed: int) -> list[float]:
    """Mean gold of every buffer."""
    done, arm = work / f"{name}-{rate:g}-{seed}-{BUFFERS[0]}.json", ARMS[name]
    if done.exists():
        return json.loads(done.read_text())  # type: ignore[no-any-return]
    lines = train_toy(
        work,
        done.stem,
        work / "prompts.jsonl",
        seed=seed,
        rate=rate,
        tokens=TOKENS,
        buffers=float(BUFFERS[0]),
        per_buffer=PROMPTS,
        answers=ANSWERS,
        reward=str(work / arm.scorer),
        gold=(f"{REWARDS}:mean_quality",),
        algorithm=PPO(epochs=2),
        credit=arm.credit,
        mask=arm.mask,
        advantage=None if arm.macro is None else MacroGAE(termination=Windows(size=arm.macro)),
        leash=InReward(beta=0.01),
    )
    gold = [line["gold/mean_quality/mean"] for line in lines if "buffer" in line]
    done.write_text(json.dumps(gold))
    return gold


def answers_needed(gold: Sequence[float]) -> int:
    """Answers until a buffer's mean gold passes the target; all of them where none does."""
    place = next((number for number, value in enumerate(gold) if value > TARGET), len(gold) - 1)
    return PROMPTS * ANSWERS * (place + 1)


def measure(work: Path, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """One arm at its best rate."""
    trials = {rate: float(np.mean([np.mean(run(work, name, rate, seed)) for seed in TUNING])) for rate in RATES}
    rate = max(trials, key=trials.__getitem__)
    runs = [run(work, name, rate, seed) for seed in seeds]
    return {
        "arm": name,
        "rate": rate,
        "trials": trials,
        "needed": [answers_needed(gold) for gold in runs],
        "reached": sum(max(gold) > TARGET for gold in runs),
        "area": [float(np.mean(gold)) for gold in runs],
        "end": [float(np.mean(gold[-3:])) for gold in runs],
    }


def report(found: dict[str, dict[str, Any]], accuracy: dict[str, float]) -> str:
    """The page."""
    known = ", ".join(f"{name} {value:.2f}" for name, value in accuracy.items())
    lines = [
        "# Dense and terminal reward from one scorer", "",
        f"{describe_processor()['processor']}. Held-out pair accuracy of the scorers: {known}. At most {BUFFERS[0]} buffers of {PROMPTS * ANSWERS} "
        f"answers; target: mean gold above {TARGET}; ± is half of a 95 % interval over seeds.", "",
        "| arm | learning rate | answers to the target | less its terminal arm, paired | reached | mean gold over all buffers | at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, own in found.items():
        beside = ARMS[name].beside
        saved = ""
        if beside in found:
            pairs = zip(own["needed"], found[str(beside)]["needed"], strict=True)
            saved = shown(mean_interval([float(one - other) for one, other in pairs]), 0)
        numbers = f"{shown(mean_interval(list(map(float, own['needed']))), 0)} | {saved} | {own['reached']} of {len(own['needed'])}"
        lines.append(f"| {name} | {own['rate']:g} | {numbers} | {shown(mean_interval(own['area']))} | {shown(mean_interval(own['end']))} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """All arms."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two seeds, three buffers, one rate; nothing is written")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "dense-or-terminal")
    asked = parser.parse_args()
    (asked.work / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if asked.quick:
        RATES[:], TUNING[:], BUFFERS[:] = [1e-2], [101], [3]
    make_inputs(asked.work)
    accuracy = {name: json.loads((asked.work / name / "run.json").read_text())["evaluation"]["eval_accuracy"]["mean"] for name in HEADS}
    found = {name: measure(asked.work, name, (1, 2) if asked.quick else (1, 2, 3, 4, 5)) for name in ARMS}
    if asked.quick:
        print(report(found, accuracy))
    else:
        write(asked.out, "dense-or-terminal", found, report(found, accuracy))


if __name__ == "__main__":
    main()
