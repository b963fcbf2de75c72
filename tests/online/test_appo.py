"""Segments whose reward agrees with their advantage (online/appo.py) within the stages: the rule, PPO as its limit, and who it does not mask."""

from dataclasses import replace

import pytest
import torch

from finegrain.credit.asr import keep_mask
from finegrain.errors import UsageError
from finegrain.online.aggregate import SeqMeanTokenMean
from finegrain.online.appo import APPO, FullMask
from finegrain.online.clipped import clipped_policy_loss
from finegrain.online.gae import GAE
from finegrain.online.leash import InLoss
from finegrain.online.ppo import PPO
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Stages, StageState, Update, compute_update
from finegrain.online.whiten import WhitenUnbiased
from finegrain.ops.segment_scores import BatchMean, Constant, Quantile, ResponseMean
from finegrain.ops.segmenters import Tokens
from finegrain.types import Pair, SampledTokens, Side
from tests.online.rollouts import make_rollout
from tests.online.sides import total
from tests.online.stage_laws import LAWS, Law, dense_at_the_end_is_the_scalar

WORKED = torch.tensor([[0.5, -0.02, 0.3, -1.1, -0.8, -0.9, 0.7, 0.6]], dtype=torch.float64)


def compute(rollout: Rollout, mask: APPO | FullMask) -> Update:
    stages = Stages(advantage=GAE(), whitening=WhitenUnbiased(), mask=mask)
    return compute_update(rollout, stages, stages.start())


def test_worked_segments() -> None:
    live = torch.ones(1, 8, dtype=torch.bool)
    for advantage, whole, tokens in ((1.0, "11100011", "10100011"), (-1.0, "00011100", "01011100")):
        given = torch.full((1, 8), advantage)
        for mask, want in ((APPO(), whole), (APPO(segmenter=Tokens()), tokens)):
            found = mask(WORKED, given, live)
            assert "".join(str(int(kept)) for kept in found.keep[0]) == want
    facts = APPO()(WORKED, torch.ones(1, 8), live).facts
    assert (facts["mask/segments"], facts["mask/kept"], facts["mask/dropped"]) == (3, 5 / 8, 0)
    assert "mask/kept_down" not in facts
    mixed = APPO(segmenter=Tokens())(WORKED, torch.tensor([[1.0, -1, -1, 1, 0, -1, 0, -2]]), live)
    assert mixed.keep.int().tolist() == [[1, 1, 0, 0, 0, 1, 1, 0]]


def test_token_wise_it_is_the_released_rule_on_the_advantage_that_trains() -> None:
    rollout = make_rollout(dense=True)
    update = compute(rollout, APPO(segmenter=Tokens()))
    live = rollout.mask & rollout.judged[:, None]
    want = keep_mask(torch.where(live, rollout.tokens[..., 0], 0.0), live, update.advantage >= 0)
    assert torch.equal(update.keep.bool(), want)
    full = compute(rollout, FullMask())
    assert full.keep is None
    assert torch.equal(full.advantage, update.advantage)
    assert torch.equal(full.returns, update.returns)


@pytest.mark.parametrize("baseline", [Constant(b=0.3), ResponseMean(), BatchMean(), Quantile()])
def test_padding_and_what_stands_under_it_change_nothing(baseline: object) -> None:
    rollout = make_rollout(dense=True)
    mask = APPO(baseline=baseline)  # type: ignore[arg-type]
    want = compute(rollout, mask)
    assert not want.keep[~rollout.mask].any()
    for law in LAWS:
        if law is not dense_at_the_end_is_the_scalar:
            _check(law, mask)


def _check(law: Law, mask: APPO) -> None:
    """The laws make their own rollouts without rewards on tokens: with them the mask's own numbers obey too."""
    law(lambda rollout: compute(replace(rollout, tokens=torch.where(rollout.mask, rollout.old_logp, 0.0).nan_to_num()[..., None]), mask))


def gradients(algorithm: PPO, stages: Stages, update: Update, rollout: Rollout) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    moved = 0.4 * torch.randn(rollout.mask.shape, generator=generator, dtype=torch.float64)
    logp, values = (rollout.old_logp + moved).requires_grad_(), (rollout.values + moved[..., None]).requires_grad_()
    sampled = SampledTokens(rollout.old_logp, update.advantage, update.returns, rollout.values, update.keep)
    side = Side(logp=logp, ref_logp=rollout.ref_logp, mask=rollout.mask, values=values, weight=update.weight, sampled=sampled)
    terms = algorithm.policy_loss(stages)(Pair(sides={"answer": side}))
    by_term = [
        torch.autograd.grad(total({name: term}), wrt, retain_graph=True)[0]
        for name, term in terms.items()
        for wrt in (logp, values)[name == "value" :][:1]
    ]
    return tuple(by_term)


def test_a_full_mask_is_ppo_and_the_critic_and_leash_learn_from_all_tokens() -> None:
    rollout, algorithm = make_rollout(dense=True), PPO(aggregate=SeqMeanTokenMean())
    plain, masked = (algorithm.stages(leash=InLoss(), mask=mask) for mask in (None, APPO(segmenter=Tokens())))
    updates = [compute_update(rollout, stages, stages.start()) for stages in (plain, masked)]
    want, got = (gradients(algorithm, stages, update, rollout) for stages, update in zip((plain, masked), updates, strict=True))
    kept, live = updates[1].keep.bool(), rollout.mask & rollout.judged[:, None]
    assert kept.any()
    assert (live & ~kept).any()
    assert not got[0][~kept].any()
    assert not torch.allclose(want[0], got[0])
    for place in (1, 2):  # value, kl
        torch.testing.assert_close(got[place], want[place], rtol=1e-12, atol=1e-12)
    full = updates[1]._replace(keep=torch.ones_like(updates[1].keep))
    for one, other in zip(gradients(algorithm, masked, full, rollout), want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_loss_is_that_of_the_reference_values() -> None:
    """A mean per answer over what it kept, then over the answers that kept something, whatever the algorithm's own average is."""
    rollout, algorithm = make_rollout(dense=True), PPO()
    stages = algorithm.stages(mask=APPO(segmenter=Tokens(), baseline=Constant(b=-9.0)))
    update = compute_update(rollout, stages, stages.start())
    assert update.facts["mask/dropped"] > 0
    logp = rollout.old_logp + 0.3
    side = Side(
        logp=logp,
        mask=rollout.mask,
        values=rollout.values,
        weight=update.weight,
        sampled=SampledTokens(rollout.old_logp, update.advantage, update.returns, rollout.values, update.keep),
    )
    got = algorithm.policy_loss(stages)(Pair(sides={"answer": side}))["policy"]
    want = clipped_policy_loss(logp, rollout.old_logp, update.advantage, update.keep, clip=0.2)
    torch.testing.assert_close(got.value.sum() / got.count.sum(), want.value.sum() / want.count.sum(), rtol=1e-12, atol=1e-12)


def test_without_rewards_on_tokens_it_says_so() -> None:
    rollout = make_rollout()
    with pytest.raises(UsageError, match="credit:head"):
        compute(rollout, APPO())
    stages = Stages(advantage=GAE(), mask=APPO())
    later = compute_update(rollout, stages, StageState(0.0, dense=True))  # a buffer in which no span was found, after one with spans
    assert not later.keep.any()
    assert later.state.dense
    assert any("baseline" in line for line in later.warnings)
    assert compute_update(make_rollout(dense=True), stages, stages.start()).state.dense
