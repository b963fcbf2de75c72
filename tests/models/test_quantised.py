"""4-bit bases: what is refused in one line; what they compute needs bitsandbytes, which the tests do not install."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from finegrain.cli import main
from finegrain.errors import UsageError
from finegrain.models.quantised import check_four_bit, make_four_bit_arguments
from tests.tiny import save_tiny, write_pairs


def test_a_base_as_its_checkpoint_is_asks_for_nothing() -> None:
    assert make_four_bit_arguments("checkpoint", torch.float32, torch.device("cpu")) == {}


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="it is installed")
def test_one_line_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = save_tiny(tmp_path / "model"), write_pairs(tmp_path / "pairs.jsonl", 8)
    command = ["prefer", "--model", str(model), "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--lora.base", "nf4"]
    assert main([*command, "--lora.rank", "2"]) == 2
    assert "pip install -c constraints.txt -e '.[nf4]'" in capsys.readouterr().err
    assert main(command) == 2
    assert "add --lora.rank" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


REFUSED = [({"in_memory": True}, "quantises a checkpoint on loading"), ({"shard": True}, "--shard"), ({"adapter": False}, "--lora.rank")]


@pytest.mark.parametrize(("facts", "words"), REFUSED)
def test_what_has_no_4_bit_base(facts: dict[str, bool], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_four_bit(**{"adapter": True, "in_memory": False, "shard": False, **facts})
