"""A loaded reward model: its head's scores of tokens and answers, differences of them along an answer, shares by its attention."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.credit.abc import ABC
from finegrain.credit.r3hf import R3HF
from finegrain.data.records import Example
from finegrain.models.attention_rows import has_rows, read_head_and_rows
from finegrain.models.score import Precision, compute_head_rows
from finegrain.models.scorer import Scorer, causal_lm, head_outputs, stock_attention
from finegrain.ops.location import LocationNormaliser, Spread
from finegrain.ops.segments import place_in_row
from finegrain.ops.sequence import to_wide
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import RewardHead, aspect_scores, combine_members, find_segment_ends, sequence_score, token_scores
from finegrain.scoring.adapters import Adapter
from finegrain.scoring.records import Scores, SegmentScores
from finegrain.scoring.segmentation import Segmentation
from finegrain.types import Ragged, Scored, Side

Found = list[dict[str, Scores]]
"""By example and role."""
AttentionOf = Callable[[int, str], Float[Tensor, "1 H T"]]
"""What stands behind the score of an example's answer, of its tokens, head by head."""


@dataclass(frozen=True, eq=False)
class LoadedRewardModel:
    """A reward model whose head is attached to its network; scores of one call are packed together."""

    scorer: Scorer
    """With the head's module."""
    head: RewardHead
    """What its outputs mean."""
    precision: Precision
    name: str
    """The checkpoint, for messages."""
    segmentation: Segmentation | None = None
    """What cuts answers, for a head of segments or steps."""
    location: LocationNormaliser | None = None
    """The scale of its segments' scores by place, where training found one."""
    adapters: tuple[Adapter, ...] = ()
    """What lies beside the checkpoint and changes its scores, in this order."""

    def head_scores(self, examples: Sequence[Example], roles: Sequence[str]) -> Found:
        """Token scores, and the answer's score as the head's readout has it."""
        return self._all_scores(compute_head_rows(self.scorer, examples, roles, self.precision), examples, roles)

    def _all_scores(self, outputs: Mapping[str, Ragged], examples: Sequence[Example], roles: Sequence[str]) -> Found:
        """The same from the head's outputs."""
        return [{role: self._scores(outputs[role][place], example.responses[role].mask) for role in roles} for place, example in enumerate(examples)]

    def segment_scores(self, examples: Sequence[Example], roles: Sequence[str], spread: Spread, location: LocationNormaliser | None) -> Found:
        """Scores of segments or steps, placed on their tokens, on one scale by place where a `location` says how."""
        assert self.segmentation is not None
        outputs, ids = compute_head_rows(self.scorer, examples, roles, self.precision), self.segmentation(examples, roles, self.precision)
        return [
            {role: self._of_segments(outputs[role][place], example.responses[role].mask, ids[place][role], spread, location) for role in roles}
            for place, example in enumerate(examples)
        ]

    def prefix_differences(self, examples: Sequence[Example], roles: Sequence[str], spread: R3HF) -> Found:
        """Differences of the score along the answer, and of each member's for the uncertainty."""
        outputs = self._with_prompt(examples, roles)
        found = []
        for place, example in enumerate(examples):
            scores = {}
            for role in roles:
                mask = torch.from_numpy(np.array(example.responses[role].mask))
                tokens = self.head.tokens(torch.from_numpy(outputs[role][place])[None])
                values = _with_members(tokens.mean[0], None if tokens.members is None else tokens.members[:, 0])
                rewards = spread(values[:, 1:], values[:, 0], mask.expand(len(values), -1))
                scores[role] = self._scores(outputs[role][place][1:], example.responses[role].mask)._replace(tokens=_of(rewards))
            found.append(scores)
        return found

    def attention_shares(self, examples: Sequence[Example], roles: Sequence[str], spread: ABC) -> Found:
        """Shares of the score in proportion to what the answer's last token attends to; an eager pass per answer where rows are not packed."""
        read = read_head_and_rows(self.scorer, examples, roles, self.precision) if has_rows(self.scorer) else None
        if read is None:
            return self._shares(
                examples, roles, spread, self.head_scores(examples, roles), lambda place, role: self._last_attention(examples[place], role)
            )
        scores = self._all_scores(read.outputs, examples, roles)
        return self._shares(examples, roles, spread, scores, lambda place, role: read.rows[role][place][None])

    def even_shares(self, examples: Sequence[Example], roles: Sequence[str], spread: ABC) -> Found:
        """Equal shares of the score: what a signal that looks at the text has to beat."""
        scores = self.head_scores(examples, roles)
        return self._shares(examples, roles, spread, scores, lambda place, role: torch.ones(1, 1, len(examples[place].responses[role].ids)))

    def saliency(self, examples: Sequence[Example], roles: Sequence[str]) -> Found:
        """Gradient of the score with respect to each token's embedding, times the embedding; a backward pass per answer."""
        return [
            {role: one._replace(tokens=Scored(self._saliency(example, role))) for role, one in scores.items()}
            for example, scores in zip(examples, self.head_scores(examples, roles), strict=True)
        ]

    def _saliency(self, example: Example, role: str) -> Float[Tensor, " T"]:
        """(T,) float32 or wider, 0 outside the mask."""
        assert self.scorer.head is not None
        response, prompt = example.responses[role], len(example.prompt)
        ids = torch.from_numpy(np.concatenate([example.prompt, response.ids]).astype(np.int64))[None].to(self.scorer.device)
        mask = torch.from_numpy(np.array(response.mask))[None].to(self.scorer.device)
        lm = causal_lm(self.scorer.model)
        with torch.enable_grad(), self.precision.autocast(), stock_attention(self.scorer.model):
            inputs = lm.get_input_embeddings()(ids).detach().requires_grad_()
            states = lm.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
            outputs = head_outputs(self.scorer.head, states[0, prompt:])[None]
            score = sequence_score(self.head, Side(logp=torch.zeros(mask.shape), mask=mask, outputs=outputs)).mean
            (slope,) = torch.autograd.grad(score.sum(), inputs)
        values = (to_wide(slope) * to_wide(inputs.detach())).sum(-1)[0, prompt:]
        return torch.where(mask[0], values, 0.0).cpu()

    def _shares(self, examples: Sequence[Example], roles: Sequence[str], spread: ABC, scored: Found, attention_of: AttentionOf) -> Found:
        """Shares of the score in proportion to an attention, and of each member's for the uncertainty."""
        found = []
        for place, (example, scores) in enumerate(zip(examples, scored, strict=True)):
            rewards = {}
            for role, one in scores.items():
                mask = torch.from_numpy(np.array(example.responses[role].mask))
                total = _with_members(one.answer.mean, one.answer.members)
                attention = attention_of(place, role)
                rewards[role] = one._replace(tokens=_of(spread(attention.expand(len(total), -1, -1), total, mask.expand(len(total), -1))))
            found.append(rewards)
        return found

    def _last_attention(self, example: Example, role: str) -> Float[Tensor, "1 H T"]:
        """What the answer's last scored token attends to among the answer's tokens, in the last layer, head by head."""
        response, prompt = example.responses[role], len(example.prompt)
        lm = causal_lm(self.scorer.model)
        before = lm.config._attn_implementation
        ids = torch.from_numpy(np.concatenate([example.prompt, response.ids]).astype(np.int64))[None].to(self.scorer.device)
        lm.set_attn_implementation("eager")
        try:
            with torch.no_grad(), self.precision.autocast():
                layers = lm.base_model(input_ids=ids, output_attentions=True, use_cache=False).attentions
        finally:
            lm.set_attn_implementation(before)
        last = prompt + int(np.flatnonzero(response.mask)[-1])
        row: Tensor = layers[-1][:, :, last, prompt:].float().cpu()
        return row

    def _with_prompt(self, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, Ragged]:
        """(1 + T, K) per answer: the head's outputs at the prompt's last token, then at the answer's tokens."""
        long = [place for place, example in enumerate(examples) if len(example.prompt) > 1]
        moved = [_FromPrompt(examples[place].prompt[:-1], {role: _moved(examples[place], role) for role in roles}) for place in long]
        values = compute_head_rows(self.scorer, moved, roles, self.precision) if moved else {role: [] for role in roles}
        found: dict[str, Ragged] = {role: [np.zeros(0)] * len(examples) for role in roles}
        for role in roles:
            for place, rows in zip(long, values[role], strict=True):
                found[role][place] = rows
        short = [place for place, example in enumerate(examples) if len(example.prompt) == 1]
        outputs = compute_head_rows(self.scorer, [examples[place] for place in short], roles, self.precision) if short else {}
        for at, place in enumerate(short):
            start = self._at_first_token(examples[place].prompt)
            for role in roles:
                found[role][place] = np.concatenate([start.astype(outputs[role][at].dtype), outputs[role][at]])
        return found

    def _at_first_token(self, prompt: np.ndarray) -> np.ndarray:
        """(1, K): outputs at the last token of a prompt that has no token before it."""
        assert self.scorer.head is not None
        ids = torch.from_numpy(prompt.astype(np.int64))[None].to(self.scorer.device)
        with torch.no_grad(), self.precision.autocast(), stock_attention(self.scorer.model):
            states = causal_lm(self.scorer.model).base_model(input_ids=ids, use_cache=False).last_hidden_state
            outputs: np.ndarray = head_outputs(self.scorer.head, states[0, -1:]).cpu().numpy()
        return outputs

    def _scores(self, outputs: np.ndarray, mask: Bool[np.ndarray, " T"]) -> Scores:
        """The head's scores of the tokens of one answer, and of the answer."""
        on = torch.from_numpy(np.array(mask))[None]
        tokens = token_scores(self.head, torch.from_numpy(outputs)[None], on)
        mean, std, members, *_ = (None if values is None else torch.where(on, values, 0.0) for values in tokens)
        assert mean is not None
        own = torch.from_numpy(outputs)[None]
        side = Side(logp=torch.zeros(on.shape), mask=on, outputs=own)
        aspects = {name: values[0] for name, values in aspect_scores(self.head, own, on).items()}
        answer = _first(sequence_score(self.head, side))
        scores = Scores(answer, _first(Scored(mean, std, members)), attributes=attributes_of(self.head, side), token_aspects=aspects)
        for adapter in self.adapters:
            scores = adapter.on_answer(scores, side)
        return scores

    def _of_segments(self, outputs: np.ndarray, mask: np.ndarray, ids: np.ndarray, spread: Spread, location: LocationNormaliser | None) -> Scores:
        """The head's scores of the segments or steps of one answer, and of the answer."""
        on, segment, values = (torch.from_numpy(np.array(one))[None] for one in (mask, ids, outputs))
        side = Side(logp=torch.zeros(on.shape), mask=on, segment=segment, outputs=values)
        ends = find_segment_ends(self.head, side)
        at_ends = torch.where(ends, token_scores(self.head, values, ends).mean, 0.0)
        scaled = at_ends if location is None else torch.where(ends, location(at_ends.double(), place_in_row(segment)), 0.0)
        answer = _first(sequence_score(self.head, side))
        return Scores(answer, Scored(spread(scaled, segment)[0]), segments=SegmentScores(ids, Scored(scaled[0])))


class _FromPrompt(NamedTuple):
    """An example whose answers begin with the prompt's last token, so that the head is read there too."""

    prompt: np.ndarray
    responses: Mapping[str, Any]


class _MovedAnswer(NamedTuple):
    ids: np.ndarray
    mask: np.ndarray


def _moved(example: Example, role: str) -> _MovedAnswer:
    response = example.responses[role]
    return _MovedAnswer(np.concatenate([example.prompt[-1:], response.ids]), np.concatenate([np.ones(1, bool), response.mask]))


def attributes_of(head: RewardHead, side: Side) -> dict[str, float]:
    """Each attribute's rating of the only answer of a side; {} for a head without attributes."""
    own = read_head(head).attributes
    if own is None:
        return {}
    assert side.outputs is not None
    return {name: float(value[0]) for name, value in own(torch.where(side.mask[..., None], side.outputs, 0.0), side.mask).items()}


def _first(scored: Scored) -> Scored:
    """The only row of a batch of one."""
    std, members, member_std = scored.std, scored.members, scored.member_std
    return Scored(
        scored.mean[0],
        None if std is None else std[0],
        None if members is None else members[:, 0],
        None if member_std is None else member_std[:, 0],
    )


def _with_members(score: Float[Tensor, "..."], members: Float[Tensor, "M ..."] | None) -> Float[Tensor, "N ..."]:
    """The head's score, weighed as the head does, then its members where it has any."""
    return score[None] if members is None else torch.cat([score[None], members])


def _of(rewards: Float[Tensor, "N T"]) -> Scored:
    """The score's rewards with the members' spread; without several members their uncertainty is unknown."""
    score, members = rewards[0], rewards[1:]
    return Scored(score) if len(members) < 2 else combine_members(members)._replace(mean=score)
