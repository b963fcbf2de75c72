"""Our objectives and token credit inside TRL's DPOTrainer: docs/guides/in-trl.md quotes the first half, the second half checks it.

Runs in an environment with TRL 1.16 and finegrain:

    python benchmarks/in_trl.py [--model M] [--data pairs.jsonl]      one JSON line: largest loss difference to TRL's own dpo, losses with spans

Exit status 1 where DPO under this trainer differs from TRL's by more than 1e-5, or where credit changes nothing.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags
from datasets import Dataset
from places import SMALL_LM
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from finegrain import Pair, Side
from finegrain.data.spans import spans_to_tokens
from finegrain.objectives.dpo import DPO
from finegrain.objectives.simpo import SimPO
from finegrain.ops.segment_scores import keep_mask
from finegrain.ops.sequence import token_logps


def token_weights(tokenizer: Any, row: dict[str, Any], side: str) -> list[float]:
    """Spans to tokens through the tokenizer's offsets; tokens that contradict the answer's label get 0."""
    ids, spans = row[f"{side}_ids"], row.get(f"{side}_spans")
    if spans is None:
        return [1.0] * len(ids)
    whole = tokenizer(row["prompt"] + row[side], return_offsets_mapping=True)
    offsets = np.array(whole["offset_mapping"])[-len(ids) :] - len(row["prompt"])
    reward = torch.from_numpy(spans_to_tokens([tuple(span) for span in spans], offsets, outside=1.0))[None]
    kept = keep_mask(reward, torch.ones_like(reward, dtype=torch.bool), torch.tensor([[side == "chosen"]]))
    return kept[0].float().tolist()


class CreditTrainer(DPOTrainer):
    """DPOTrainer with any objective of ours, and with token credit from the columns chosen_spans and rejected_spans."""

    def __init__(self, *, objective: Any, **settings: Any) -> None:
        self.objective = objective
        super().__init__(**settings)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """TRL's own tokens, and a weight for each token of an answer."""
        dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        return dataset.map(lambda row: {f"{side}_weight": token_weights(processing_class, row, side) for side in ("chosen", "rejected")})

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in ("chosen_weight", "rejected_weight") if name not in self._signature_columns]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Mean of our per-row loss over the batch: TRL's denominators, not ours."""
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        tokens = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        outputs = model(**tokens)
        logp, mask = token_logps(outputs.logits, labels)
        with torch.no_grad():
            ref_logp, _ = token_logps(self.ref_model(**tokens).logits, labels)
        halves = zip(*(part.chunk(2) for part in (logp, mask, ref_logp, inputs["weight"][:, 1:])), strict=True)
        chosen, rejected = (Side(logp=lp, mask=m, ref_logp=ref, weight=w) for lp, m, ref, w in halves)
        loss = self.objective(Pair(sides={"chosen": chosen, "rejected": rejected})).mean()
        return (loss, outputs) if return_outputs else loss


class CreditCollator(DataCollatorForPreference):
    """TRL's collator, with the weights padded as the tokens are."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch and `weight`, chosen rows first."""
        batch = super().torch_call(examples)
        rows = [[0.0] * len(row["prompt_ids"]) + row[f"{side}_weight"] for side in ("chosen", "rejected") for row in examples]
        weight = torch.zeros(batch["input_ids"].shape)
        for place, row in enumerate(rows):
            kept = row[: self.max_length] if self.truncation_mode == "keep_start" else row[-(self.max_length or len(row)) :]
            weight[place, : len(kept)] = torch.tensor(kept)
        return {**batch, "weight": weight}


def sums() -> list[dict[str, Any]]:
    """Sixteen pairs about sums, for want of data."""
    facts = [(one, other, one + other) for one in (3, 14, 25, 36) for other in (2, 13, 24, 35)]
    return [
        {"prompt": f"Question: What is {a} plus {b}?\nAnswer:", "chosen": f" {a} + {b} is {c}.", "rejected": f" I think that is {c + a}, or more."}
        for a, b, c in facts
    ]


def losses_of(trainer_class: Any, rows: list[dict[str, Any]], model: str, work: str, **settings: Any) -> list[float]:
    """Losses of the steps of a short run without shuffling."""
    arguments = DPOConfig(
        output_dir=work,
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        warmup_steps=0,
        beta=0.1,
        max_length=256,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = trainer_class(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **settings)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> int:
    """Compare with TRL, then train with credit and with another objective."""
    parser = flags(__doc__)
    parser.add_argument("--model", default=str(SMALL_LM))
    parser.add_argument("--data", type=Path, help='jsonl with "prompt", "chosen", "rejected"')
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.data.read_text().splitlines()][:16] if given.data else sums()
    annotated = [{**row, "chosen_spans": [], "rejected_spans": [[0, len(row["rejected"]) // 2, -1.0]]} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    with tempfile.TemporaryDirectory() as work:
        theirs = losses_of(DPOTrainer, rows, given.model, work)
        collate = {"data_collator": CreditCollator(pad_token_id=tokenizer.pad_token_id, max_length=256)}
        ours = losses_of(CreditTrainer, rows, given.model, work, objective=DPO(beta=0.1), **collate)
        credit = losses_of(CreditTrainer, annotated, given.model, work, objective=DPO(beta=0.1), **collate)
        simpo = losses_of(CreditTrainer, rows, given.model, work, objective=SimPO(), **collate)
    difference = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    moved = max(abs(one - other) for one, other in zip(ours, credit, strict=True))
    print(json.dumps({"largest_difference_to_trl": difference, "largest_change_by_credit": moved, "trl": theirs, "credit": credit, "simpo": simpo}))
    return int(not (difference < 1e-5 and moved > 1e-4))


if __name__ == "__main__":
    sys.exit(main())
