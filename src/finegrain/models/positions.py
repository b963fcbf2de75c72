"""The number of positions of a model with a table of positions; rotary and relative positions have no limit."""

from typing import Any

from transformers import AutoConfig

from finegrain.models.load_errors import RAISED

NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
AFTER_PADDING = ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
"""Architectures whose first position is the one after the pad token's."""


def learned_positions(config: Any) -> int | None:
    """The longest row in tokens that a model of this config can read; None without a limit."""
    config = config.get_text_config()
    if hasattr(config, "rope_parameters") or getattr(config, "alibi", False) is True:
        return None
    size = next((value for name in NAMES if isinstance(value := getattr(config, name, None), int) and value > 0), None)
    if size is None or config.model_type not in AFTER_PADDING:
        return size
    return size - 1 - (config.pad_token_id or 0)


def read_position_limit(source: str) -> int | None:
    """The same for a checkpoint folder or Hub name; None where its config cannot be read, which loading the model reports."""
    try:
        return learned_positions(AutoConfig.from_pretrained(source, trust_remote_code=False))
    except RAISED:
        return None
