"""Scores of a run's own tokens by a scorer: a reward model with any tokenizer, or a policy against the start model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from finegrain.credit.reward_signals import RewardSignal
from finegrain.data.findings import Findings
from finegrain.data.records import Example
from finegrain.errors import CreditError
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.reward_models import is_reward_model
from finegrain.recipes.session import Session
from finegrain.scoring.implicit import ImplicitReward, read_logps
from finegrain.scoring.records import Reward
from finegrain.scoring.reward_model import load_model_reward
from finegrain.scoring.signals import Densest
from finegrain.scoring.tokens import TokenReader, align_scores, make_candidates, map_each
from finegrain.types import AnswerScores, Ragged


def score_tokens(
    session: Session,
    scorer: str,
    examples: Sequence[Example],
    roles: Sequence[str],
    reference: Mapping[str, Ragged],
    beta: float,
    signal: RewardSignal | None = None,
) -> dict[str, list[AnswerScores]]:
    """By role, scores of every answer and of its tokens; `reference`: log-probabilities of the start model.

    Of a reward model the signal asked for; without one the head's own, scores of segments or steps split evenly over theirs, prefix differences
    where the head reads the last token only. Its texts are those of the examples, read by its own tokenizer and brought over as character spans.
    """
    reward = _open(session, scorer, len(examples), reference, beta, signal)
    candidates = map_each(make_candidates(examples, session.policy.tokenizer), lambda one: one.taking({role: role for role in roles}))
    assert isinstance(candidates, Sequence)
    findings = Findings()
    read = reward.read(candidates, findings)
    lost = [] if read is candidates else [example.row for example, one in zip(examples, read, strict=True) if one is None]
    if lost:
        dropped = ", ".join(f"{count} {kind}" for kind, count in findings.dropped().items())
        raise CreditError(f"{scorer} cannot read {len(lost)} of {len(examples)} rows, the first is row {lost[0]}; dropped were {dropped or 'none'}")
    found: dict[str, list[AnswerScores]] = {role: [] for role in roles}
    for example, scores in zip(
        examples, reward.score([one for one in read if one is not None] if read is not candidates else candidates), strict=True
    ):
        for role in roles:
            one = scores[role]
            moved = None if one is None else align_scores(one, example.responses[role])
            if one is None or moved is None:
                raise CreditError(f"{scorer} scores whole answers alone, and a credit needs scores of tokens")
            found[role].append(AnswerScores(moved, float(one.answer.mean)))
    for line in reward.describe():
        session.say(f"credit: {line}")
    return found


def _open(session: Session, scorer: str, rows: int, reference: Mapping[str, Ragged], beta: float, signal: RewardSignal | None) -> Reward:
    if is_reward_model(scorer):
        reward = load_model_reward(replace(session.runtime, cache=None), scorer, max_length=session.max_length, signal=signal or Densest())
        by = Densest().choice(reward.model)[1] if signal is None else signal.facts.name
        session.say(f"credit: scoring {rows} rows with the reward model {scorer}, by {by}")
        return reward
    if signal is not None:
        raise CreditError(f"credit.signal:{signal.facts.name} is read from a reward model, and the scorer {scorer} is none; name one")
    session.say(f"credit: scoring {rows} rows with {scorer}")
    policy = load_policy(scorer, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)
    if policy.tokenizer.get_vocab() != session.policy.tokenizer.get_vocab():
        raise CreditError(f"the scorer {scorer} has another tokenizer than the policy; an implicit reward needs the same tokens")
    reader = TokenReader(session.policy.tokenizer, session.max_length)
    return ImplicitReward(reader, session.runtime, beta, lambda *_: reference, [read_logps(policy)], lambda: {"source": scorer}, widened=False)
