"""`finegrain score`: what a policy and its reference say of every token of given answers, as character offsets."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from finegrain.credit.segmenters import Dynamic, Segmenter
from finegrain.errors import ModelError, UsageError
from finegrain.recipes.check_data import _check_free, write_new
from finegrain.types import Json, Scored

TokenScorer = Callable[[Any, Sequence[str]], Mapping[str, Sequence[Scored]]]
"""(examples, roles) -> by role, token scores (T_i,) of each example; 0 on tokens that are not the answer's."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score answers token by token with the implicit reward beta * (log pi - log pi_ref) of a policy against its reference."""

    model: str
    """The policy: checkpoint folder or Hub name."""
    reference: str
    """The model the policy was trained from, with the same tokenizer."""
    data: str
    """json, jsonl(.gz), csv or parquet file, a folder of them, or a Hub name; pairs give two responses, other rows one."""
    out: Path
    """File for one JSON line per response; it must not exist yet."""
    beta: float = 0.1
    """Scale of the log-ratio: the beta the policy was trained with."""
    segmenter: Segmenter = field(default_factory=Dynamic)
    """Where segments begin; by default at pivots of change."""
    limit: int | None = None
    """Read at most this many rows."""
    max_length: int = 1024
    """Longest prompt + answer in tokens; answers are cut at their end, and what was cut is not scored."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Arithmetic of both models."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise UsageError(f"--beta scales the log-ratio and must be positive and finite, got {self.beta}")


def run_score(settings: Score) -> dict[str, Any]:
    """scores.jsonl, complete or absent, and what was counted."""
    from finegrain.data.gate.keeper import FIRST_ROWS, common_format, own_shape
    from finegrain.data.read import read
    from finegrain.models.lora import Lora
    from finegrain.recipes.entry import quiet_transformers
    from finegrain.recipes.session import load_data, open_session
    from finegrain.recipes.settings import Common, Training

    _check_free(settings.out)
    quiet_transformers()
    shape = own_shape(common_format(list(islice(read(settings.data, settings.limit).rows, FIRST_ROWS))))
    common = Common(limit=settings.limit, max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
    session = open_session(settings.model, common, Training(), Lora())
    scorer = implicit_reward(session, settings.reference, settings.beta)
    data = load_data(session, settings.data, shape, limit=settings.limit)
    scores = scorer(data.examples, data.examples.roles)
    if not any(bool(one.mean.any()) for rows in scores.values() for one in rows):
        session.say("every score is 0: policy and reference say the same of these answers; are they the same model?")
    lines = list(as_lines(data.examples, scores, settings.segmenter))
    write_new(settings.out, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    cut = sum(line["truncated"] for line in lines)
    counts = {"responses": len(lines), "rows": data.report["rows"], "dropped": data.report["dropped"], "truncated": cut}
    return {"out": str(settings.out), **counts, "format": data.report["format"]}


def implicit_reward(session: Any, reference: str, beta: float) -> TokenScorer:
    """beta * (log pi - log pi_ref) of the session's policy; its std is unknown."""
    from finegrain.models.load import load_policy, master_dtype
    from finegrain.recipes.frozen import frozen_logps

    frozen = load_policy(reference, master=master_dtype(session.how.name))
    if frozen.tokenizer.get_vocab() != session.policy.tokenizer.get_vocab():
        raise ModelError(f"the reference {reference} has another tokenizer than the policy; an implicit reward needs the same tokens")

    def scores(examples: Any, roles: Sequence[str]) -> dict[str, list[Scored]]:
        new, old = (frozen_logps(session, policy, examples, roles) for policy in (session.policy, frozen))
        return {
            role: [Scored(torch.from_numpy(beta * (a.astype(np.float64) - b))) for a, b in zip(new[role], old[role], strict=True)] for role in roles
        }

    return scores


def as_lines(examples: Any, scores: Mapping[str, Sequence[Scored]], segmenter: Segmenter) -> Iterator[Json]:
    """One line per response, in the order of the data; ids are row/role, with a number where a row repeats."""
    seen: dict[str, int] = {}
    for place, example in enumerate(examples):
        for role, rows in scores.items():
            name = f"{example.row}/{role}"
            seen[name] = seen.get(name, 0) + 1
            line = {"id": name if seen[name] == 1 else f"{name}/{seen[name]}", "prompt": example.prompt_text}
            yield {**line, **_line(example.responses[role], rows[place], segmenter)}


def _line(response: Any, scored: Scored, segmenter: Segmenter) -> Json:
    mask = torch.from_numpy(np.array(response.mask))
    means = scored.mean[mask].tolist()
    stds = [None] * len(means) if scored.std is None else scored.std[mask].tolist()
    spans = _spans(response.offsets[response.mask].tolist())
    ids = segmenter(scored.mean[None], mask[None])[0][mask].tolist()
    segments = []
    for segment in sorted(set(ids)):
        own = [place for place, one in enumerate(ids) if one == segment]
        segments.append([min(spans[p][0] for p in own), max(spans[p][1] for p in own), sum(means[p] for p in own) / len(own)])
    return {
        "response": response.text,
        "score": {"mean": sum(means), "std": None},
        "tokens": [[start, end, mean, std] for (start, end), mean, std in zip(spans, means, stds, strict=True)],
        "segments": segments,
        "truncated": max((end for _, end in spans), default=0) < len(response.text.rstrip()),
    }


def _spans(offsets: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Offsets; a token without characters stands, empty, where the token before it ends."""
    spans: list[tuple[int, int]] = []
    for start, end in offsets:
        here = spans[-1][1] if spans else 0
        spans.append((start, end) if end > start else (here, here))
    return spans
