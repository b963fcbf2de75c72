"""The demo's base model: a tiny Llama with a word tokenizer, trained by the `sft` job on answers drawn without preference."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finegrain.commands.settings import Common, Training
from finegrain.data.planted import World, list_words, make_demonstrations, write_jsonl
from finegrain.models.lora import Lora
from finegrain.models.permissions import allow_readers
from finegrain.objectives.nll import NLL
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job
from finegrain.train.optim import Optim

WIDTH = 64
RATE = 5e-3


def word_tokenizer() -> Any:
    """One token per word with the space before it, and per punctuation mark; text comes back unchanged."""
    tokens = ["<pad>", "<bos>", "<eos>", "<unk>", ".", "?", *list_words(), *(f" {word}" for word in list_words())]
    tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|\W"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def start_model(tokens: int, *, seed: int) -> Any:
    """A random model of about a hundred thousand parameters."""
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_untrained(folder: Path, *, seed: int) -> Path:
    """A random model with its tokenizer, as a checkpoint."""
    tokenizer = word_tokenizer()
    start_model(len(tokenizer), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    allow_readers(folder)
    return folder


def make_base(folder: Path, world: World, *, answers: int, steps: int, batch_size: int) -> Path:
    """The checkpoint of the base model."""
    start = save_untrained(folder / "untrained", seed=0)
    data = write_jsonl(folder / "demonstrations.jsonl", make_demonstrations(world, answers))
    job = Job(
        command="sft",
        model=str(start),
        data=str(data),
        out=folder / "base",
        objective=NLL(),
        credit=None,
        common=Common(lr=RATE, max_steps=steps, device="cpu"),
        training=Training(epochs=steps * batch_size / answers, batch_size=batch_size, holdout=0.0, samples=0, examined=0),
        lora=Lora(),
        optim=Optim(),
        settings={},
    )
    align(job)
    return folder / "base"
