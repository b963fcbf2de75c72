"""Models with a table of positions: where it ends, and that nothing is longer."""

import numpy as np
import pytest
import torch
import transformers as T

from finegrain.generate.hf import generate_greedy, sample_answers
from finegrain.models.positions import learned_positions, read_position_limit
from tests.data.tiny import byte_level

SMALL = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "gpt2": lambda: T.GPT2LMHeadModel(T.GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=24)),
    "opt": lambda: T.OPTForCausalLM(T.OPTConfig(**SMALL, ffn_dim=16, word_embed_proj_dim=16, max_position_embeddings=24)),
    "roberta": lambda: T.RobertaForCausalLM(T.RobertaConfig(**SMALL, intermediate_size=16, max_position_embeddings=26, is_decoder=True)),
    "gptj": lambda: T.GPTJForCausalLM(T.GPTJConfig(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=24, rotary_dim=4)),
    "mpt": lambda: T.MptForCausalLM(T.MptConfig(vocab_size=400, d_model=16, n_layers=1, n_heads=2, max_seq_len=24)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_row_of_all_positions_runs_and_one_longer_does_not(make):
    model = make()
    positions = learned_positions(model.config)
    assert positions == 24
    ids = torch.arange(3, 3 + positions + 1)[None]
    with torch.no_grad():
        assert model(ids[:, :-1], use_cache=False).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            model(ids, use_cache=False)


def test_rotary_and_relative_positions_have_no_end():
    for config in (T.LlamaConfig(), T.GPTNeoXConfig(), T.BloomConfig(), T.FalconConfig(alibi=True), T.MambaConfig(), T.Gemma3Config()):
        assert learned_positions(config) is None


def test_generation_stays_within_the_positions():
    model, tokenizer = MODELS["gpt2"](), byte_level()
    prompts = [np.arange(3, 3 + length, dtype=np.int32) for length in (4, 23, 24, 40)]
    assert len(generate_greedy(model, tokenizer, prompts, max_new_tokens=64)) == 4
    assert all(1 <= len(answer) <= 24 for answer in sample_answers(model, tokenizer, prompts, max_new_tokens=64, seed=0))


@pytest.mark.parametrize("config", ["", "[]", '{"model_type": "nothing"}', '{"model_type": "gpt2", "n_positions": "many"}', '{"model_type": 3}'])
def test_a_config_that_cannot_be_read_says_nothing(config, tmp_path):
    (tmp_path / "config.json").write_text(config)
    assert read_position_limit(str(tmp_path)) is None
    assert read_position_limit(str(tmp_path / "none")) is None
