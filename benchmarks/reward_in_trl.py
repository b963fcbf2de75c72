"""Our reward models inside TRL's GRPOTrainer: docs/guides/use-your-reward-model.md quotes what this checks.

Runs in an environment with TRL 1.16 and finegrain:

    python benchmarks/reward_in_trl.py    writes benchmarks/results/reward-in-trl.json, differences of rewards between checkpoint and function

A tiny reward model is trained on conversations and another on plain text. Each is given to GRPOTrainer twice: as a checkpoint folder, which
TRL loads and feeds itself, and as `finegrain.reward_function(folder)`. Exit status 1 where the two disagree by more than 1e-5 on conversations,
or where a function disagrees with `finegrain score` on the completions that TRL sampled.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags
from datasets import Dataset
from inputs import byte_level_bpe
from places import RESULTS
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

import finegrain
from finegrain.data.planted import write_jsonl
from finegrain.rewards.sequence import Sequence

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = "the sky is blue and the grass is green because good people say so while others say bad words about nothing".split()


def save_base(folder: Path, *, chat: bool) -> Path:
    """A tiny Llama with a byte-level tokenizer; with `chat` of the ChatML kind."""
    tokenizer = byte_level_bpe([" ".join(WORDS)], 340, special=("<pad>", "<bos>", "<|im_start|>", "<|im_end|>"))
    if chat:
        tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs(*, chat: bool) -> list[dict[str, Any]]:
    """Forty pairs whose chosen answer says good and whose rejected answer says bad."""
    rng = np.random.default_rng(0)
    found = []
    for row in range(40):
        filler = " ".join(rng.choice(WORDS, 4))
        prompt, chosen, rejected = f"why {row} {filler}?", f" good {filler}", f" bad words {filler}"
        if chat:
            said = lambda role, text: [{"role": role, "content": text.strip()}]
            found.append({"prompt": said("user", prompt), "chosen": said("assistant", chosen), "rejected": said("assistant", rejected)})
        else:
            found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return found


def train_reward(work: Path, base: Path, rows: list[dict[str, Any]]) -> Path:
    """A reward model of a few steps, whose scores are apart."""
    file = write_jsonl(work / "pairs.jsonl", rows)
    common = finegrain.Common(max_steps=8, lr=0.01, device="cpu", max_length=128)
    finegrain.train_reward_model(str(base), file, work / "reward", head=Sequence(), common=common)
    return work / "reward"


class Kept(GRPOTrainer):
    """GRPOTrainer that keeps every batch of completions and what each reward said of them."""

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.kept = [*getattr(self, "kept", []), (prompts, completions, rewards.cpu())]
        return rewards


def compare(work: Path, *, chat: bool) -> dict[str, float]:
    """Largest differences over the completions of two steps of GRPO, and the spread of the scores."""
    base = save_base(work / "base", chat=chat)
    rows = pairs(chat=chat)
    run = train_reward(work, base, rows)
    arguments = GRPOConfig(
        output_dir=str(work / "grpo"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=12,
        max_steps=2,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        temperature=1.0,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = Kept(
        model=str(base),
        reward_funcs=[str(run), finegrain.reward_function(run, device="cpu")],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    rewards = torch.cat([found for _, _, found in trainer.kept])
    asked = [{"prompt": one, "response": two} for batch in trainer.kept for one, two in zip(batch[0], batch[1], strict=True)]
    own = torch.tensor(scored(work, run, asked))
    return {
        "completions": len(rewards),
        "checkpoint_to_function": float((rewards[:, 0] - rewards[:, 1]).abs().max()),
        "function_to_score": float((rewards[:, 1] - own).abs().max()),
        "spread": float(own.std()),
        "correlation": float(torch.corrcoef(rewards.T)[0, 1]),
    }


def scored(work: Path, run: Path, asked: list[dict[str, Any]]) -> list[float]:
    """`finegrain score` of the same completions."""
    lines = ({"messages": [*one["prompt"], *one["response"]]} if isinstance(one["prompt"], list) else one for one in asked)
    file = write_jsonl(work / "completions.jsonl", lines)
    finegrain.score(file, work / "scores.jsonl", model=run, device="cpu")
    return [json.loads(line)["score"]["mean"] for line in (work / "scores.jsonl").read_text().splitlines()]


def main() -> int:
    """Both kinds of prompts."""
    out = flags(__doc__, out=RESULTS).parse_args().out
    found = {}
    for name, chat in (("conversations", True), ("text", False)):
        with tempfile.TemporaryDirectory() as work:
            found[name] = compare(Path(work), chat=chat)
    versions = {name: version(name).partition("+")[0] for name in ("trl", "transformers", "torch")}
    out.mkdir(parents=True, exist_ok=True)
    (out / "reward-in-trl.json").write_text(json.dumps(versions | found, indent=1) + "\n")
    print(json.dumps(versions | found))
    agree = found["conversations"]["checkpoint_to_function"] < 1e-5
    return int(not (agree and all(one["function_to_score"] < 1e-5 < one["spread"] for one in found.values())))


if __name__ == "__main__":
    sys.exit(main())
