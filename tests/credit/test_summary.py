"""The log line, worked by hand, and blocks against single rows."""

import numpy as np
import torch

from finegrain.credit.answers import map_blocks
from finegrain.credit.asr import ASR
from finegrain.credit.function import Function
from finegrain.credit.summary import summarise
from finegrain.ops.segmenters import Dynamic, Tokens
from finegrain.types import TokenColumns
from tests.credit.fake import pair_context


def test_worked() -> None:
    chosen = [np.array([1.0, 1.0, -1.0, -1.0]), np.array([-1.0, -1.0]), None]
    rejected = [np.array([-1.0, 1.0]), None, None]
    context = pair_context(chosen, rejected)
    columns = ASR(segmenter=Tokens()).prepare(context)
    got = summarise(columns, context.role_masks, context.signs)
    assert got == {
        "credit/annotated/chosen": 2 / 3,
        "credit/kept/chosen": 2 / 6,
        "credit/dropped/chosen": 1 / 2,
        "credit/segments/chosen": 3.0,
        "credit/agreement/chosen": 2 / 6,
        "credit/annotated/rejected": 1 / 3,
        "credit/kept/rejected": 1 / 2,
        "credit/dropped/rejected": 0.0,
        "credit/segments/rejected": 2.0,
        "credit/agreement/rejected": 1 / 2,
    }


def test_what_the_columns_do_not_say_is_left_out() -> None:
    context = pair_context([np.zeros(2)], [np.zeros(2)], functions={"chosen": [[(0, 1, 0.5)]], "rejected": [None]})
    got = summarise(Function(path="f.py:f").prepare(context), context.role_masks, context.signs)
    assert got == {"credit/annotated/chosen": 1.0, "credit/kept/chosen": 0.75, "credit/dropped/chosen": 0.0, "credit/annotated/rejected": 0.0}


def test_blocks_equal_single_rows() -> None:
    lengths = torch.randint(1, 30, (70,)).tolist()
    values = [torch.randn(length, dtype=torch.float64) for length in lengths]
    masks = [torch.rand(length) < 0.9 for length in lengths]
    want = [Dynamic()(value[None], mask[None])[0] for value, mask in zip(values, masks, strict=True)]
    for size in (1, 7, 256):
        got = map_blocks(Dynamic(), values, masks, size=size)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_agreement_wants_rewards_and_segments() -> None:
    rewards, ids = [np.array([1.0, -3.0, 2.0], dtype=np.float32)], [np.array([0, 0, 1], dtype=np.int32)]
    masks, signs = {"chosen": [np.ones(3, dtype=bool)]}, {"chosen": np.ones(1)}

    def numbers(reward: list, segment: list) -> dict[str, float]:
        return summarise({"chosen": TokenColumns([None], reward, segment, [True])}, masks, signs)

    assert numbers(rewards, ids) == {"credit/annotated/chosen": 1.0, "credit/segments/chosen": 2.0, "credit/agreement/chosen": 1 / 3}
    assert numbers(rewards, [None]) == {"credit/annotated/chosen": 1.0}
    assert numbers([None], ids) == {"credit/annotated/chosen": 1.0, "credit/segments/chosen": 2.0}
