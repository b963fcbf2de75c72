"""TRL's side of the speed benchmark of online RL: one GRPOTrainer run. A JSON spec as argument, one JSON line on stdout.

As fast as TRL's public settings make it on this work without changing the work; runs in TRL's own environment. Same spec and same answer as
online_speed.py's own side.
"""

import json
import resource
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import AutoTokenizer, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer


def reward(completions: list[str], **columns: object) -> list[float]:
    """As speed_reward.py has it."""
    return [text.count("1") / max(1, len(text)) for text in completions]


class Clock(TrainerCallback):
    """Clocks at the begin of training and after every update."""

    def __init__(self) -> None:
        self.times: list[list[float]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The begin."""
        self.times.append(clocks())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """An update."""
        self.times.append(clocks())


def clocks() -> list[float]:
    """[wall, processor] seconds."""
    return [time.perf_counter(), time.process_time()]


class Watched(GRPOTrainer):
    """Notes how long sampling takes."""

    sampling = 0.0

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        found = super()._generate(*args, **kwargs)
        type(self).sampling += time.perf_counter() - started
        return found


def main() -> None:
    """One run."""
    spec = json.loads(sys.argv[1])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()
    torch.set_num_threads(spec["threads"])
    with open(spec["prompts"]) as stream:
        rows = [json.loads(line) for line in stream]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    config = GRPOConfig(
        output_dir=spec["out"], per_device_train_batch_size=spec["prompts_per_update"] * spec["answers"], num_generations=spec["answers"],
        max_completion_length=spec["tokens"], beta=spec["beta"], num_iterations=1, temperature=1.0, learning_rate=1e-5, lr_scheduler_type="constant",
        max_steps=spec["updates"], report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=False, use_cpu=True,
        gradient_checkpointing=False, dataloader_num_workers=0, seed=0, model_init_kwargs={"dtype": "float32"}, shuffle_dataset=False,
        optim="adamw_torch_fused",
    )  # fmt: skip
    clock = Clock()
    trainer = Watched(
        spec["model"], reward_funcs=reward, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
    )
    trainer.train()
    steps = [after[0] - before[0] for before, after in zip(clock.times, clock.times[1:], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"steps": steps, "sampling": Watched.sampling, "peak_bytes": peak, "processor": clock.times[-1][1] - clock.times[0][1]}))


if __name__ == "__main__":
    main()
