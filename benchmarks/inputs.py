"""Make the models and token-identical pairs that both sides of the speed benchmark train on; tokenizers for other benchmarks too.

Run by speed.py in a process of its own: `python benchmarks/inputs.py SPEC` with a JSON list of what to make; every entry writes
`<folder>/pairs.jsonl` (prompt, chosen, rejected as strings that begin and continue at token boundaries) and `<folder>/order.json`, and, where
asked, a model folder beside it. Nothing that exists is made again.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from finegrain.data.planted import write_jsonl
from finegrain.train.batches import Plan

SPECIAL = ["<pad>", "<bos>", "<eos>"]
MARK = "\n\nAssistant:"
HEAD_WIDTH = 64


def dialogues(file: Path) -> Iterator[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of the dialogues that differ in the last answer only; empty and identical answers are left out."""
    with gzip.open(file, "rt") as stream:
        for line in stream:
            row = json.loads(line)
            (prompt, _, chosen), (other, _, rejected) = (row[side].rstrip().rpartition(MARK) for side in ("chosen", "rejected"))
            if prompt == other and chosen.strip() and rejected.strip() and chosen != rejected:
                yield f"{prompt.lstrip()}{MARK}", chosen, rejected


def fitting(tokenizer: Any, file: Path, pairs: int, max_length: int) -> list[dict[str, str]]:
    """The first pairs that need no truncation and whose tokens are the same whether tokenised whole or as parts."""
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = []
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    for text, *answers in dialogues(file):
        prompt = begin + text
        start, whole = ids(prompt), [ids(prompt + answer + end) for answer in answers]
        if all(len(all_ids) <= max_length and all_ids == start + ids(answer + end) for all_ids, answer in zip(whole, answers, strict=True)):
            rows.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
        if len(rows) == pairs:
            return rows
    raise SystemExit(f"{file} holds {len(rows)} fitting pairs, {pairs} are needed")


def random_words(vocabulary: int, pairs: int, prompt: int, answer: int, seed: int = 0) -> list[dict[str, str]]:
    """Pairs of uniform random words of the word-level tokenizer: exactly `prompt` tokens with <bos>, `answer` with <eos>."""
    rng = np.random.default_rng([seed, vocabulary, prompt])
    words = lambda count: " ".join(f"w{number}" for number in rng.integers(0, vocabulary - len(SPECIAL), count))
    return [{"prompt": f"<bos>{words(prompt - 1)}", "chosen": f" {words(answer - 1)}", "rejected": f" {words(answer - 1)}"} for _ in range(pairs)]


def byte_level_bpe(texts: Iterable[str], vocabulary: int, special: Sequence[str] = SPECIAL) -> Any:
    """A byte-level BPE learnt from the texts, of at most that many tokens. Special tokens: padding, begin, others, and last the end."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    return _fast(bpe, special)


def word_level(vocabulary: int) -> Any:
    """A tokenizer whose words are w0, w1, ...: any vocabulary, exact lengths."""
    names = SPECIAL + [f"w{number}" for number in range(vocabulary - len(SPECIAL))]
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<pad>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return _fast(model, SPECIAL)


def _fast(tokenizer: tokenizers.Tokenizer, special: Sequence[str]) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], bos_token=special[1], eos_token=special[-1])


def llama(vocabulary: int, layers: int, width: int, seed: int = 0) -> Any:
    """A randomly initialised Llama with tied embeddings and heads of 64."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.LlamaForCausalLM(config)


def make_model(spec: dict[str, Any]) -> None:
    """A model folder with its tokenizer."""
    folder = Path(spec["model"])
    if folder.exists():
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    if spec["tokenizer"] == "bpe":
        tokenizer = byte_level_bpe((text for row in dialogues(Path(spec["source"])) for text in row), spec["vocabulary"])
        assert len(tokenizer) == spec["vocabulary"], f"the texts give {len(tokenizer)} tokens only"
    else:
        tokenizer = word_level(spec["vocabulary"])
    llama(spec["vocabulary"], spec["layers"], spec["width"]).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)


def make_pairs(spec: dict[str, Any]) -> None:
    """pairs.jsonl, and order.json: the rows in the order our plan visits them."""
    folder, count = Path(spec["folder"]), spec["pairs"]
    if (folder / "order.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if "source" in spec:
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec["model"])
        rows = fitting(tokenizer, Path(spec["source"]), count, spec["max_length"])
    else:
        rows = random_words(spec["vocabulary"], count, spec["prompt"], spec["answer"])
    write_jsonl(folder / "pairs.jsonl", rows)
    plan = Plan(tokens=np.ones(count, dtype=np.int64), batch_size=spec["batch_size"], epochs=1.0, seed=spec["seed"], micro_tokens=1)
    (folder / "order.json").write_text(json.dumps([row for index in range(len(plan)) for row in plan.step(index).rows]))


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    for spec in json.loads(sys.argv[1]):
        if "vocabulary" in spec:
            make_model(spec)
        make_pairs(spec)


if __name__ == "__main__":
    main()
