"""attention_rows: the last token's row of the last layer, from the packed pass, is the stock model's; the head's outputs are as without it."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from finegrain.models.attention_rows import has_rows, read_head_and_rows
from finegrain.models.packing import Group
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, compute_head_rows
from finegrain.models.scorer import stock_attention
from tests.tiny import MODELS, ragged_groups


class _Answer:
    def __init__(self, group: Group, role: int) -> None:
        self.prompt, self.responses = group.prompt, {"answer": group.branches[role]}


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_the_stock_model(name: str) -> None:
    model = MODELS[name]().double().eval()
    scorer, _ = make_scorer(model, longest=256, head=torch.nn.Linear(32, 2, bias=False).double())
    scorer.eval()
    assert has_rows(scorer)
    examples = [_Answer(group, place) for group in ragged_groups(long=40) for place in range(len(group.branches))]
    precision = Precision(nullcontext, "float64", 120)
    read = read_head_and_rows(scorer, examples, ["answer"], precision)
    assert read is not None
    for one, other in zip(read.outputs["answer"], compute_head_rows(scorer, examples, ["answer"], precision)["answer"], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    with stock_attention(model), torch.no_grad():
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        for example, row in zip(examples, read.rows["answer"], strict=True):
            answer = example.responses["answer"]
            ids = torch.from_numpy(np.concatenate([example.prompt, answer.ids]).astype(np.int64))[None]
            layers = model.base_model(input_ids=ids, output_attentions=True, use_cache=False).attentions
            last = len(example.prompt) + int(np.flatnonzero(answer.mask)[-1])
            torch.testing.assert_close(row, layers[-1][0, :, last, len(example.prompt) :].float(), rtol=1e-5, atol=1e-6)
        model.set_attn_implementation(before)
