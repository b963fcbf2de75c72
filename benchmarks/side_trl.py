"""The TRL side of the speed benchmark: one DPOTrainer or RewardTrainer run. A JSON spec as argument, one JSON line on stdout.

As fast as TRL's public settings make it on this work without changing the work: no gradient checkpointing, no telemetry, no progress bar, no
saving, fused AdamW, no worker processes. Same spec and same answer as side_finegrain.py.
"""

import time

BORN = time.perf_counter()

import hashlib  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from datasets.utils.logging import disable_progress_bar  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer  # noqa: E402

IDS = {"prefer": ("prompt_ids", "chosen_ids", "rejected_ids"), "reward": ("chosen_ids", "rejected_ids")}


class Watched:
    """Notes a trainer's losses and the time of its reference pass, where it has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.losses: list[float] = []
        self.reference = [0.0, 0.0]
        super().__init__(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.losses.append(float(loss.detach()))
        return loss

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        started = clocks()
        values = super()._precompute_ref_logps(*args, **kwargs)
        self.reference = [now - then for now, then in zip(clocks(), started, strict=True)]
        return values


class WatchedDPO(Watched, DPOTrainer):
    """Preference training."""


class WatchedReward(Watched, RewardTrainer):
    """Reward-model training."""


class Clock(TrainerCallback):
    """Clocks at the begin of training and after every optimiser step."""

    def __init__(self) -> None:
        self.times: list[list[float]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(clocks())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(clocks())


def clocks() -> list[float]:
    """[wall, processor] seconds."""
    return [time.perf_counter(), time.process_time()]


def reward_model(spec: dict[str, Any]) -> Any:
    """The classification model with the head that the other side starts from."""
    model = AutoModelForSequenceClassification.from_pretrained(spec["model"], num_labels=1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(spec["seed"])
    width = model.config.hidden_size
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, width, generator=generator) / (width + 1))
    return model


def main() -> None:
    spec = json.loads(sys.argv[1])
    logging.set_verbosity_error()
    disable_progress_bar()
    rows = [json.loads(line) for line in Path(spec["pairs"]).read_text().splitlines()]
    clock = Clock()
    settings = {
        "output_dir": spec["work"],
        "per_device_train_batch_size": spec["batch_size"],
        "num_train_epochs": 1,
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_length": spec["max_length"],
        "bf16": spec["arithmetic"] == "bfloat16",
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": spec["seed"],
    }
    given = {
        "train_dataset": Dataset.from_list([rows[index] for index in spec["order"]]),
        "processing_class": AutoTokenizer.from_pretrained(spec["model"]),
        "callbacks": [clock],
    }
    if spec["task"] == "reward":
        trainer = WatchedReward(model=reward_model(spec), args=RewardConfig(**settings), **given)
    else:
        more = {"beta": spec["beta"], "precompute_ref_log_probs": spec["precompute"]}
        if spec["lora"]:
            given["peft_config"] = LoraConfig(r=spec["lora"], lora_alpha=spec["lora"], target_modules="all-linear", lora_dropout=0.0)
        trainer = WatchedDPO(model=spec["model"], args=DPOConfig(**settings, **more), **given)
    columns = [trainer.train_dataset[name] for name in IDS[spec["task"]]]
    digest = hashlib.sha256(json.dumps([list(map(list, row)) for row in zip(*columns, strict=True)]).encode()).hexdigest()
    trainer.train()
    wall, processor = (end - begin for begin, end in zip(clock.times[0], clock.times[-1], strict=True))
    steps = [after[0] - before[0] for before, after in zip(clock.times, clock.times[1:], strict=False)]
    answer = {
        "tokens_sha256": digest,
        "pairs": len(rows),
        "train_seconds": wall + trainer.reference[0],
        "train_cpu_seconds": processor + trainer.reference[1],
        "reference_seconds": trainer.reference[0],
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "load_seconds": clock.times[0][0] - BORN - trainer.reference[0],
        "step_seconds": [round(seconds, 4) for seconds in steps],
        "losses": trainer.losses,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
