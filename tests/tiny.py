"""Tiny models, tokenizers and files, built in code."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from finegrain.data.records import Example, Response
from finegrain.models.packing import Branch, Group

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}


def _make(name: str, **changes: Any) -> Any:
    config = getattr(transformers, changes.pop("config", name + "Config"))(**{**SIZES, **changes})
    torch.manual_seed(0)
    return getattr(transformers, changes.get("model", name + "ForCausalLM"))(config)


def _gpt2() -> Any:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2)
    )


MODELS: dict[str, Callable[[], Any]] = {
    "llama": partial(_make, "Llama"),
    "qwen2, window 6": partial(_make, "Qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "qwen3": partial(_make, "Qwen3", head_dim=8),
    "mistral, window 6": partial(_make, "Mistral", sliding_window=6),
    "gemma2, soft-caps": partial(_make, "Gemma2", attn_logit_softcapping=5.0, final_logit_softcapping=3.0, **GEMMA),
    "gemma3, mixed layers": partial(
        _make, "Gemma3", config="Gemma3TextConfig", **{**GEMMA, "num_hidden_layers": 4}, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "gpt2, default dropout": _gpt2,
    "granite, scaled logits": partial(_make, "Granite", logits_scaling=3.0),
}


def ragged_groups(seed: int = 0, *, long: int = 140) -> list[Group]:
    """Prompts of 1 to `long` tokens with one to three answers, some tokens of which are not scored."""
    rng = np.random.default_rng(seed)

    def branch(count: int) -> Branch:
        mask = rng.random(count) < 0.8
        mask[0] = True
        return Branch(rng.integers(3, VOCABULARY, count).astype(np.int32), mask)

    shapes = ((9, (5, 14)), (1, (1, 3, 7)), (long, (20, 3)), (4, (long, 1)))
    return [Group(rng.integers(3, VOCABULARY, prompt).astype(np.int32), tuple(branch(n) for n in answers)) for prompt, answers in shapes]


def exact_norms(model: torch.nn.Module) -> None:
    """RMS norms in the dtype of their input: transformers' round to float32, which hides differences below 1e-7."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)  # type: ignore[method-assign]


def _rms_norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    weight = 1 + module.weight if type(module).__name__.startswith("Gemma") else module.weight
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def plant_fault(model: torch.nn.Module) -> None:
    """A fault as small as the comparisons in float64 must still see: the first layer's attention answers a hundred-millionth more."""
    weight = next(weight for name, weight in model.named_parameters() if name.endswith(("o_proj.weight", "c_proj.weight")))
    with torch.no_grad():
        weight.mul_(1 + 1e-8)


def examples(count: int, seed: int = 0, *, roles: tuple[str, ...] = ("chosen", "rejected"), label: bool = False) -> list[Example]:
    """Ragged random rows."""
    rng = np.random.default_rng(seed)

    def response(length: int) -> Response:
        ids = rng.integers(3, VOCABULARY, length).astype(np.int32)
        mask = np.ones(length, dtype=bool)
        if length > 4 and rng.random() < 0.3:
            mask[1:3] = False
        offsets = np.stack([np.arange(length), np.arange(1, length + 1)], 1).astype(np.int32)
        return Response(ids, mask, offsets, "x" * length)

    return [
        Example(
            row=row,
            prompt=rng.integers(3, VOCABULARY, rng.integers(1, 12)).astype(np.int32),
            prompt_text=f"prompt {row}",
            responses={role: response(int(rng.integers(1, 15))) for role in roles},
            columns={"label": float(row % 2)} if label else {},
            spans=dict.fromkeys(roles),
            token_rewards=dict.fromkeys(roles),
        )
        for row in range(count)
    ]


TEXT = ("the cat sat on the mat . a dog ran after it , and good people said yes . bad words are not good . why is the sky so blue ? ") * 3


def save_tiny(folder: Path, model: Any = None, *, width: int = 32, layers: int = 1) -> Path:
    """A checkpoint folder of a tiny Llama with a byte-level tokenizer, as `save_pretrained` writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    if model is None:
        size = {"hidden_size": width, "intermediate_size": 48, "num_hidden_layers": layers}
        model = _make("Llama", vocab_size=tokenizer.get_vocab_size(), tie_word_embeddings=True, **size)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


VARYING = {"step_seconds", "tokens_per_second", "eval_seconds"}
"""What two runs of one command log differently."""


def without_times(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Logged lines without it."""
    return [{name: value for name, value in line.items() if name not in VARYING and not name.startswith("seconds/")} for line in lines]


def write_rows(file: Path, rows: Iterable[Any]) -> Path:
    """JSON lines, as a data file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def as_of_others(folder: Path) -> None:
    """A reward model of ours as a stock checkpoint that another program made."""
    for name in ("reward_head.json", "reward_head.safetensors"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["finegrain"]
    (folder / "config.json").write_text(json.dumps(config))


def write_pairs(file: Path, count: int = 24, seed: int = 0) -> Path:
    """Preference rows whose chosen answer says good and whose rejected answer says bad, of ragged length."""
    rng = np.random.default_rng(seed)
    words = TEXT.split()
    with file.open("w") as stream:
        for row in range(count):
            filler = " ".join(rng.choice(words, rng.integers(2, 9)))
            other = " ".join(rng.choice(words, rng.integers(2, 12)))
            line = {"prompt": f"why {row} {rng.choice(words)} ?", "chosen": f" good people said yes {filler}", "rejected": f" bad words {other}"}
            stream.write(json.dumps(line) + "\n")
    return file
