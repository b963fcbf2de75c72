"""orpo: worked number, NLL over prompt and answer, and log-odds at both ends."""

from dataclasses import replace

import pytest
import torch

from finegrain.objectives.orpo import ORPO, average_log_odds, odds_ratio_bonus
from finegrain.types import Pair
from tests.objectives.worked import close, even_side, real, worked_pair


def with_prompt(pair: Pair) -> Pair:
    """Three prompt tokens of -1, -2, -3 nats, the last of them padding."""
    chosen = replace(pair.chosen, prompt_logp=real(-1, -2, -3).unsqueeze(0), prompt_mask=torch.tensor([[True, True, False]]))
    return replace(pair, sides={**pair.sides, "chosen": chosen})


def test_worked_pair() -> None:
    pair = worked_pair()
    close(average_log_odds(pair.chosen) - average_log_odds(pair.rejected), 1.094344277)
    close(-odds_ratio_bonus(pair, beta=0.1), 0.028875078)


def test_nll_is_over_prompt_and_answer() -> None:
    terms = ORPO()(with_prompt(worked_pair()))
    close(terms["nll"].value, 13.0)
    close(terms["nll"].count, 7.0)
    close(terms["odds_ratio"].value, 0.028875078)


def test_nearly_certain_and_nearly_impossible_answers_stay_finite() -> None:
    for logp in (-1e-12, 0.0, -1e3):
        pair = Pair(sides={"chosen": even_side(logp, 0, 2), "rejected": even_side(-2.0, 0, 2)})
        assert odds_ratio_bonus(pair, beta=0.1).isfinite().all()


def test_an_answer_that_keeps_nothing_has_even_odds() -> None:
    side = even_side(-2.0, -2.0, 2)
    close(average_log_odds(replace(side, weight=torch.zeros_like(side.logp))), 0.0)


def test_without_prompt_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="prompt_logp"):
        ORPO()(worked_pair())


def test_a_prompt_without_its_mask_is_refused_too() -> None:
    whole = with_prompt(worked_pair())
    for part in ("prompt_logp", "prompt_mask"):
        chosen = replace(whole.chosen, **{part: None})
        with pytest.raises(ValueError, match="prompt_logp and prompt_mask"):
            ORPO()(replace(whole, sides={**whole.sides, "chosen": chosen}))
