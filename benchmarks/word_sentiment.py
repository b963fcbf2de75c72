"""Do token scores find the words that people call good and bad? Reward models from scratch on pairs of rated sentences.

    pip download --no-deps --no-binary :all: vaderSentiment && tar xzf vaderSentiment-*.tar.gz     (MIT licence; 2.4 MB)
    tar xzf vaderSentiment-*/additional_resources/hutto_ICWSM_2014.tar.gz
    python benchmarks/word_sentiment.py --data hutto_ICWSM_2014 --work build/word-sentiment

Sentences of film reviews, rated by people (Hutto and Gilbert 2014): a pair is one of the good ones against one of the bad ones, 3,000 of them.
Two layers from scratch see which sentence is better and nothing of words; 200 other pairs are held out, and there the scores of words that the
same authors' lexicon calls good or bad (by at least 1 of 4) are told apart. The bound to compare with is a logistic regression on words, which
has a number per word and no context. Every row on a seed is kept in --work, so that a stopped benchmark goes on; then it writes
benchmarks/results/word-sentiment.{json,md}. About a minute a row and seed on one core; `--rows` takes those whose names end so.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from command import flags, write
from places import RESULTS
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tables import markdown, summary
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.credit.reward_signals import Head, PrefixDifference, RewardSignal
from finegrain.data.load import load_examples
from finegrain.data.planted import write_jsonl
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.evaluate.discrimination import auroc
from finegrain.ops.readout import Mean
from finegrain.recipes.training.own_scorer import PAIR, score_by_whole_table
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.rewards.token import Token
from finegrain.rewards.word_prior import WordTable
from finegrain.train.optim import Optim

PAIRS, HELD_OUT, EPOCHS, WIDTH, VOCABULARY = 3000, 200, 3.0, 128, 4000
RATE = 1e-5 * 4096 / WIDTH
"""The default."""
GOOD, SURE = 0.8, 1.0
WORD = re.compile(r"[A-Za-z]+")
PROMPT = "Review:"


class Method(NamedTuple):
    """One line of the table."""

    name: str
    head: RewardHead
    signal: RewardSignal = Head()
    epochs: float = EPOCHS
    embedding_lr: float | None = None
    """None: the default, ten times the rest's up to 0.003."""


METHODS = (
    Method("head:token, sum (the default)", Token()),
    Method("the same, embeddings at the rest's rate", Token(), embedding_lr=RATE),
    Method("the same, one epoch", Token(), epochs=1.0),
    Method("the same, one epoch, embeddings at the rest's rate", Token(), epochs=1.0, embedding_lr=RATE),
    *(Method(f"head:token, sum, table as prior with weight {weight:g}", Token(prior=WordTable(weight=weight))) for weight in (10.0, 100.0)),
    Method("head:token, sum, table as prior, weight chosen", Token(prior=WordTable())),
    Method("head:token, mean", Token(readout=Mean())),
    Method("head:ensemble, mean", Ensemble(readout=Mean())),
    Method("head:sequence, its value at each token", SequenceHead()),
    Method("head:sequence, prefix differences", SequenceHead(), PrefixDifference()),
)
REGRESSION = "logistic regression on words"
TABLE = "the table alone"


class Data(NamedTuple):
    """Sentences to train and test on, and the lexicon."""

    good: Sequence[str]
    bad: Sequence[str]
    held_good: Sequence[str]
    held_bad: Sequence[str]
    lexicon: dict[str, float]


def load(folder: Path, seed: int) -> Data:
    """Another part is held out in every seed."""
    lines = (folder / "movieReviewSnippets_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    rated = [(float(rating), text.strip()) for _, rating, text in (line.split("\t", 2) for line in lines)]
    rng = np.random.default_rng(seed)
    good, bad = (rng.permutation([text for rating, text in rated if sign * rating > GOOD and len(text.split()) > 2]) for sign in (1, -1))
    lexicon = {}
    for line in (folder / "vader_sentiment_lexicon.txt").read_text(encoding="utf-8", errors="replace").splitlines():
        word, *rest = line.split("\t")
        if rest and WORD.fullmatch(word) and abs(float(rest[0])) >= SURE:
            lexicon[word.lower()] = float(rest[0])
    kept = slice(HELD_OUT, HELD_OUT + PAIRS)
    return Data(list(good[kept]), list(bad[kept]), list(good[:HELD_OUT]), list(bad[:HELD_OUT]), lexicon)


def start(folder: Path, data: Data, seed: int) -> Path:
    """An untrained two-layer model whose tokens are words."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        [*data.good, *data.bad], trainers.WordLevelTrainer(vocab_size=VOCABULARY, special_tokens=["<pad>", "<bos>", "<eos>", "<unk>"])
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 512}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    return folder / "start"


def word_scores(lines: Sequence[dict[str, Any]], lexicon: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the lexicon's words where they stand, the mean over a word's tokens, and whether people call them good."""
    scores, good = [], []
    for line in lines:
        for word in WORD.finditer(line["response"]):
            tokens = [mean for begin, end, mean, _ in line["tokens"] if begin < word.end() and word.start() < end]
            if tokens and word[0].lower() in lexicon:
                scores.append(float(np.mean(tokens)))
                good.append(lexicon[word[0].lower()] > 0)
    return np.array(scores), np.array(good)


def measured(method: Method, model: Path, folder: Path, data: Data, seed: int) -> dict[str, float]:
    """One model, trained and asked."""
    out = folder / re.sub(r"\W+", "-", method.name)
    common = Common(seed=seed, device="cpu")
    training = Training(holdout=0.0, examined=0, epochs=method.epochs)
    optim = Optim(embedding_lr=method.embedding_lr)
    finegrain.train_reward_model(model, folder / "train.jsonl", out, head=method.head, common=common, training=training, optim=optim)
    finegrain.score(folder / "held-out.jsonl", out / "scores.jsonl", model=out, signal=method.signal, device="cpu")
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    answers = {role: [line["score"]["mean"] for line in lines if line["id"].endswith(role)] for role in ("chosen", "rejected")}
    found = {"AUROC of words": auroc(*word_scores(lines, data.lexicon)).mean}
    return found | {"held-out pairs right": float(np.mean(np.array(answers["chosen"]) > np.array(answers["rejected"])))}


def regression(data: Data) -> dict[str, float]:
    """Words counted, their weights as scores; the best of four penalties on the held-out rows, which flatters it."""
    words = CountVectorizer(token_pattern=WORD.pattern, min_df=2)
    counts = words.fit_transform([*data.good, *data.bad])
    held = words.transform([*data.held_good, *data.held_bad])
    found = []
    for penalty in (0.1, 0.3, 1.0, 3.0):
        model = LogisticRegression(C=penalty, max_iter=1000).fit(counts, [1] * len(data.good) + [0] * len(data.bad))
        weight = dict(zip(words.get_feature_names_out(), model.coef_[0], strict=True))
        said = [word.lower() for text in (*data.held_good, *data.held_bad) for word in WORD.findall(text) if word.lower() in data.lexicon]
        scores = np.array([weight.get(word, 0.0) for word in said])
        good, bad = np.split(model.decision_function(held), 2)
        area = auroc(scores, np.array([data.lexicon[word] > 0 for word in said])).mean
        found.append({"AUROC of words": area, "held-out pairs right": float(np.mean(good > bad))})
    return max(found, key=lambda one: one["AUROC of words"])


def table_alone(model: Path, folder: Path, data: Data, seed: int) -> dict[str, float]:
    """The table of the training pairs, which also scores words that it has not seen, by their spelling."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    examples = [
        example
        for file in ("train", "held-out")
        for example in load_examples(str(folder / f"{file}.jsonl"), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples
    ]
    masks = {role: [example.responses[role].mask for example in examples] for role in PAIR}
    scores, _ = score_by_whole_table(examples, masks, seed, read=len(data.good))
    held = range(len(data.good), len(examples))
    lines = [
        {"response": response.text, "tokens": [(*span, score, None) for span, score in zip(response.offsets.tolist(), own, strict=True)]}
        for role in PAIR
        for response, own in ((examples[row].responses[role], scores[role][row]) for row in held)
    ]
    right = [scores["chosen"][row].sum() > scores["rejected"][row].sum() for row in held]
    return {"AUROC of words": auroc(*word_scores(lines, data.lexicon)).mean, "held-out pairs right": float(np.mean(right))}


def result_of(row: str, method: Method | None, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """A row on a seed, made now or before."""
    kept = options.work / f"{re.sub(r'[^a-z0-9]+', '-', row.lower())}-{seed}.json"
    if kept.exists():
        found: dict[str, float] = json.loads(kept.read_text())
        return found
    data = load(options.data, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, sides in (("train", (data.good, data.bad)), ("held-out", (data.held_good, data.held_bad))):
            rows = [{"prompt": PROMPT, "chosen": f" {good}", "rejected": f" {bad}"} for good, bad in zip(*sides, strict=True)]
            write_jsonl(folder / f"{file}.jsonl", rows)
        if row == REGRESSION:
            found = regression(data)
        else:
            model = start(folder, data, seed)
            found = table_alone(model, folder, data, seed) if method is None else measured(method, model, folder, data, seed)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(kept)
    print(json.dumps({"seed": seed, "row": row, **found}), flush=True)
    return found


def main() -> None:
    parser = flags(__doc__, seeds=5, out=RESULTS)
    parser.add_argument("--data", type=Path, required=True, help="the folder hutto_ICWSM_2014")
    parser.add_argument("--work", type=Path, required=True, help="folder of the results by row and seed")
    parser.add_argument("--rows", nargs="*", help="rows whose names end with any of these, written as word-prior.{json,md}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Method | None] = {TABLE: None, **{method.name: method for method in METHODS}, REGRESSION: None}
    wanted = [row for row in asked if options.rows is None or row.endswith(tuple(options.rows))]
    cells: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        for row in wanted:
            for column, value in result_of(row, asked[row], options, seed).items():
                cells.setdefault(row, {}).setdefault(column, []).append(value)
    table = summary(cells)
    about = (
        f"{PAIRS} pairs of film-review sentences, {EPOCHS:g} epochs at the default rate, two layers of {WIDTH} from scratch; means ± "
        f"half of a 95 % interval over {options.seeds} seeds, each with other held-out sentences. "
        "Made by `benchmarks/word_sentiment.py`, which says where sentences and lexicon come from."
    )
    name = "word-sentiment" if options.rows is None else "word-prior"
    write(options.out, name, {"seeds": options.seeds, "table": table}, f"{about}\n\n{markdown(table, 'token scores of', 3)}\n")


if __name__ == "__main__":
    main()
