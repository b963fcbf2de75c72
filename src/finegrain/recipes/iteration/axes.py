"""Three axes of a policy: the likelihood of texts it should still know, the reward of its answers, and how many have words that they should not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finegrain.data.gate.settings import Gate
from finegrain.data.generated import TokenTexts, make_response
from finegrain.data.records import Answer, Example, Response, Row
from finegrain.errors import DataError
from finegrain.files import cache_folder
from finegrain.generate.hf import end_tokens
from finegrain.generate.sample import open_sampler
from finegrain.generate.sampling import Sampling
from finegrain.models.fingerprint import model_fingerprint
from finegrain.online.rollout import Ended
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import mean_interval
from finegrain.recipes.rollouts.prompts import read_prompts
from finegrain.recipes.session import Session
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates
from finegrain.scoring.runtime import policy_logps
from finegrain.scoring.sources import RewardOptions
from finegrain.types import Json

ROLE = "answer"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What is measured; files that are not named measure nothing."""

    prompts: str
    """Rows with the prompts to answer."""
    reward: str
    retention: str
    """Text file, a passage a line."""
    words: str
    """File of words, one a line."""
    stop: tuple[str, ...]
    max_new_tokens: int
    limit: int | None = None


def measure_axes(session: Session, asked: Axes) -> Json:
    """Retention in nats per token (the mean over passages), reward, and shares of answers with such a word and without an end; with intervals.

    Answers are greedy. The hash of the model says of which one this is.
    """
    found: Json = {"weights": model_fingerprint(session.policy, cache_folder())}
    if asked.retention:
        found["retention"] = mean_interval(cross_entropies(session, read_lines(asked.retention))).as_json()
    texts, cut, rows = _answers(session, asked)
    scores = _scores(session, asked.reward, rows)
    judged = scores[np.isfinite(scores)]
    found |= {"reward": mean_interval(judged).as_json(), "judged": len(judged), "answers": len(texts)}
    if asked.words:
        listed = read_lines(asked.words)
        found["bad_words"] = wilson([float(has_word(text, listed)) for text in texts]).as_json()
    found["cut"] = wilson([float(one) for one in cut]).as_json()
    return found


def read_lines(file: str) -> list[str]:
    """Lines that hold something; DataError without one."""
    try:
        found = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    if not found:
        raise DataError(f"{file} has no line that holds something")
    return found


def has_word(text: str, words: Sequence[str]) -> bool:
    """Whether a text has one of the words, as whole words and in any case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def cross_entropies(session: Session, texts: Sequence[str]) -> np.ndarray:
    """Nats per token of each text under the model, its first token (or what the tokenizer puts before it) given; texts of one token are no text."""
    tokenizer = session.policy.tokenizer
    examples = []
    for place, text in enumerate(texts):
        ids = np.array(tokenizer(text)["input_ids"][: session.max_length], dtype=np.int32)
        if len(ids) < 2:
            continue
        rest = ids[1:]
        response = Response(rest, np.ones(len(rest), dtype=bool), np.zeros((len(rest), 2), dtype=np.int32), text)
        examples.append(Example(place, ids[:1], "", {ROLE: response}, {}, {ROLE: None}, {ROLE: None}))
    if not examples:
        raise DataError("no passage of the retention text has two tokens")
    return np.array([-float(one.mean(dtype=np.float64)) for one in policy_logps(session.runtime, session.policy, examples, (ROLE,))[ROLE]])


def _answers(session: Session, asked: Axes) -> tuple[list[str], list[bool], list[Candidates]]:
    """Text, whether it was cut, and what a reward is asked, of a greedy answer to each prompt."""
    policy = session.policy
    prompts, _ = read_prompts(session, asked.prompts, limit=asked.limit, room=asked.max_new_tokens, gate=Gate())
    sampling = Sampling(answers=1, max_new_tokens=asked.max_new_tokens, temperature=0.0, stop=asked.stop)
    sampler = open_sampler(policy.model, policy.tokenizer, sampling, seed=session.seed, autocast=session.precision.autocast)
    drawn = sampler([one.example.prompt for one in prompts], [one.example.row for one in prompts], 0)
    pieces, ends = TokenTexts(policy.tokenizer), end_tokens(policy.model, policy.tokenizer)
    texts, cut, rows = [], [], []
    for prompt, own in zip(prompts, drawn, strict=True):
        if not own:
            continue
        stop = asked.stop if own[0].ended == Ended.STOP_STRING else ()
        text = make_response(own[0].ids, pieces, ends=ends, stop=stop).text
        made = Row(prompt=prompt.question.made.prompt, answers={ROLE: Answer(content=text)})
        texts.append(text)
        cut.append(own[0].ended == Ended.LENGTH)
        rows.append(Candidates(row=prompt.example.row, made=made, columns=prompt.question.raw))
    return texts, cut, rows


def _scores(session: Session, reward: str, rows: Sequence[Candidates]) -> np.ndarray:
    opened = open_reward(reward, RewardOptions(runtime=lambda: session.runtime, max_length=session.max_length))
    found = [one.get(ROLE) for one in opened.score(rows)]
    return np.array([np.nan if one is None else float(one.answer.mean) for one in found])
