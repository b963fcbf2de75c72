"""What a saved reward model says of some answers, by its own files: rows of samples.jsonl, and a snippet for its card that gives one number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from finegrain.configure import to_kebab
from finegrain.data.records import Example
from finegrain.errors import FinegrainError
from finegrain.models.reward_models import SEQUENCE, Stock, read_facts
from finegrain.models.reward_tokenizer import merges
from finegrain.models.scorer import stock_attention
from finegrain.rewards.attributes import Attributes, attribute_weights
from finegrain.rewards.declarations import read_head
from finegrain.rewards.rating import Rating
from finegrain.scoring.completions import CompletionScorer
from finegrain.scoring.devices import frozen_arithmetic
from finegrain.scoring.records import Scores
from finegrain.scoring.reward_model import ModelReward, load_model_reward
from finegrain.scoring.runtime import Runtime
from finegrain.types import Json

CANDIDATES = 8
"""Rows among which the one of the card is looked for."""
LONGEST_TEXT = 600
"""Characters of prompt and answer that a card shows if it can."""
READ: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "minimum": torch.min,
    "last": lambda values: values[-1],
}
"""Readouts of token scores, by the names of their settings."""
CODE = {"sum": ".sum()", "mean": ".mean()", "minimum": ".min()", "last": "[-1]"}


class Snippet(NamedTuple):
    """Code for one answer, and the number it prints."""

    code: str
    score: float
    transformers: float | None
    """The stock class's own number in float32; None where it cannot give one."""
    one_text: bool
    """Whether the saved tokenizer gives the answer's ids when it is called on prompt and answer as one text."""
    merged: bool
    """Whether tokens of that one text span the border of prompt and answer, which were tokenised apart."""


@dataclass(frozen=True)
class Usage:
    """What a run directory says of its reward model."""

    samples: list[Json] = field(default_factory=list)
    snippet: Snippet | None = None
    trouble: str = ""
    """Why there is no number."""

    def as_json(self) -> Json:
        """For run.json."""
        if self.snippet is None:
            return {"trouble": self.trouble}
        return {"finegrain": self.snippet.score, "transformers": self.snippet.transformers}

    def words(self) -> list[str]:
        """For a person."""
        if self.snippet is None:
            return [f"the saved model could not be asked about an answer: {self.trouble}"]
        stock = self.snippet.transformers
        by = "a head that stock classes do not hold" if stock is None else f"{stock:.6g} in transformers"
        return [f"README.md scores an answer with the saved model: {self.snippet.score:.6g} here, {by}"]


def use_saved(folder: Path, stock: Stock, examples: Sequence[Example], count: int) -> Usage:
    """The checkpoint opened as `finegrain score` opens it, on the CPU in float32, and asked about the first rows."""
    device, precision = frozen_arithmetic("cpu", "float32")
    rows = [examples[place] for place in range(min(max(count, CANDIDATES), len(examples)))]
    longest = read_facts(folder)["input"]["max_length"]
    try:
        reward = load_model_reward(Runtime(device, precision, None), str(folder), max_length=longest)
        scores = list(reward.score_examples(rows))
        samples = [_sample(example, found) for example, found in zip(rows[:count], scores, strict=False)]
        choice, role = _shortest(rows, reward.tokenizer.eos_token_id)
        return Usage(samples, _snippet(reward, stock, rows[choice], role, scores[choice][role]))
    except FinegrainError as error:
        return Usage(trouble=str(error))


def _sample(example: Example, found: Any) -> Json:
    """Texts and scores of a row; its own numbers (rating, label ...) beside them."""
    line: Json = {"row": example.row, "prompt": example.prompt_text}
    for role, scores in found.items():
        line |= {role: example.responses[role].text, f"{role}_score": float(scores.answer.mean)}
        if scores.answer.std is not None:
            line[f"{role}_std"] = float(scores.answer.std)
        if scores.attributes:
            line[f"{role}_attributes"] = dict(scores.attributes)
    return line | {name: value for name, value in example.columns.items() if name not in line}


def _shortest(rows: Sequence[Example], eos: int | None) -> tuple[int, str]:
    """Place and role of the first whole answer that a card can show, else of the shortest."""
    sizes = {}
    for place, example in enumerate(rows):
        for role, response in example.responses.items():
            cut = eos is not None and int(response.ids[-1]) != eos
            size = len(example.prompt_text) + len(response.text)
            if not cut and size <= LONGEST_TEXT:
                return place, role
            sizes[place, role] = (cut, size)
    return min(sizes, key=lambda one: sizes[one])


def _snippet(reward: ModelReward, stock: Stock, example: Example, role: str, scores: Scores) -> Snippet:
    """The stock class's number where it can give the head's score, else our function's."""
    response, score = example.responses[role], float(scores.answer.mean)
    ids = [*example.prompt.tolist(), *response.ids.tolist()]
    glue = _glue(reward.tokenizer, example, role, ids)
    border = (glue is not None, glue is None and merges(reward.tokenizer, example.prompt_text, response.text))
    with torch.no_grad(), stock_attention(reward.model.scorer.model):
        logits = reward.model.scorer.model(input_ids=torch.tensor([ids])).logits
    places = np.flatnonzero(response.mask if scores.segments is None else _ends(scores.segments.ids)) + len(example.prompt)
    read = _reading(reward, stock, logits, places.tolist(), len(ids))
    if read is None or abs(read[1] - score) > 1e-4 * (1 + abs(score)):
        return _by_function(reward, example, role, score, border)
    lines = [
        "import torch",
        f"from transformers import {stock.name}, AutoTokenizer",
        "",
        'folder = "."  # where this file lies',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {stock.name}.from_pretrained(folder, dtype=torch.float32).eval()",
        *_ids_lines(reward.tokenizer, example, role, ids, glue),
        "with torch.no_grad():",
        "    logits = model(input_ids=torch.tensor([ids])).logits",
        f"score = {read[0]}",
        f"print(score)  # {read[1]:.9g}",
    ]
    return Snippet("\n".join(lines), score, read[1], *border)


def _reading(reward: ModelReward, stock: Stock, logits: torch.Tensor, places: list[int], length: int) -> tuple[str, float] | None:
    """How the score comes of the stock class's logits, as code and as a number; None for a head that they do not hold."""
    head, module = reward.model.head, reward.model.scorer.head
    if not isinstance(module, nn.Linear) or read_head(head).reads_whole_answer:
        return None
    if isinstance(head, Rating):
        ratings = torch.arange(head.classes) + head.lowest
        scaled, code = (logits[0], "logits[0]") if head.temperature == 1 else (logits[0] / head.temperature, f"(logits[0] / {head.temperature!r})")
        value = float(scaled.softmax(-1) @ ratings)
        return f"({code}.softmax(-1) @ (torch.arange({head.classes}) + {head.lowest!r})).item()  # the expected rating", value
    if isinstance(head, Attributes):
        weights = attribute_weights(head)
        code = f"(logits[0] @ torch.tensor({list(weights)!r})).item()  # logits[0] are {', '.join(head.names)}"
        return code, float(logits[0] @ torch.tensor(weights))
    if stock is SEQUENCE:
        return ("logits[0, 0].item()", float(logits[0, 0])) if places[-1] == length - 1 else None
    name = to_kebab(type(head.readout).__name__)
    if name not in READ:
        return None
    run = places == list(range(places[0], places[-1] + 1))
    where = f"{places[0]}:{places[-1] + 1}" if run else repr(places)
    what = "ends of the answer's segments or steps" if reward.model.segmentation is not None else "tokens of the answer"
    return f"logits[0, {where}, 0]{CODE[name]}.item()  # {what}", float(READ[name](logits[0, places, 0]))


def _ends(ids: np.ndarray) -> np.ndarray:
    """(T,) bool, the last token of every part."""
    later = np.append(ids[1:], -1)
    found: np.ndarray = (ids >= 0) & (later != ids)
    return found


def _glue(tokenizer: Any, example: Example, role: str, ids: list[int]) -> str | None:
    """What stands between prompt and answer in the text of which a plain call makes the ids; None where it makes other ones."""
    answer = example.responses[role].text
    return next((glue for glue in ("", " ") if tokenizer(example.prompt_text + glue + answer)["input_ids"] == ids), None)


def _ids_lines(tokenizer: Any, example: Example, role: str, ids: list[int], glue: str | None) -> list[str]:
    """Lines that make the ids: of prompt and answer, of one text with its special tokens, or as they are."""
    if glue is not None:
        pieces = f"prompt, answer = {example.prompt_text!r}, {glue + example.responses[role].text!r}"
        return [pieces, f'ids = tokenizer(prompt + answer)["input_ids"]  # {_said(tokenizer, ids)}']
    text = tokenizer.decode(ids)
    if tokenizer(text, add_special_tokens=False)["input_ids"] == ids:
        return [f"text = {text!r}", 'ids = tokenizer(text, add_special_tokens=False)["input_ids"]']
    return [f"ids = {ids!r}  # prompt and answer were tokenised apart"]


def _said(tokenizer: Any, ids: list[int]) -> str:
    """Which special tokens stand around the text."""
    ends = (("front", ids[0], tokenizer.bos_token_id), ("end", ids[-1], tokenizer.eos_token_id))
    told = [f"{tokenizer.convert_ids_to_tokens(number)} at the {where}" for where, number, special in ends if number == special]
    return ", ".join(told) or "no special tokens"


def _by_function(reward: ModelReward, example: Example, role: str, score: float, border: tuple[bool, bool]) -> Snippet:
    """The same through `finegrain.reward_function`, for a head that stock classes do not hold."""
    answer = example.responses[role].text
    longest = len(example.prompt) + len(example.responses[role].ids) + 8
    scorer = CompletionScorer(replace(reward, reader=replace(reward.reader, max_length=longest)), None)
    texts = [glue + answer for glue in ("", " ")]
    scores = scorer([example.prompt_text] * len(texts), texts, None)
    text, printed = next(((text, one) for text, one in zip(texts, scores, strict=True) if one == score), (texts[0], scores[0]))
    lines = [
        "import finegrain",
        "",
        'reward = finegrain.reward_function(".", device="cpu")  # where this file lies; stock classes do not hold this head\'s score',
        f"prompt, answer = {example.prompt_text!r}, {text!r}",
        f"print(reward([prompt], [answer])[0])  # {printed!r}",
    ]
    return Snippet("\n".join(lines), score, None, *border)
