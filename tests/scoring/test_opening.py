"""Every kind of reward in the table keeps the laws."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finegrain.commands import resolve
from finegrain.credit.reward_signals import PrefixDifference
from finegrain.ops.segmenters import Windows
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import SOURCES, RewardOptions, find_source, is_text_source
from tests.recipes.reward_folder import moved, save_reward
from tests.scoring.laws import LAWS, Opened
from tests.tiny import save_tiny

FUNCTION = """
from transformers import AutoTokenizer

def number(completions, quality, **rest):
    return [None if "cat" in text else len(text) + score for text, score in zip(completions, quality)]

def spans(completions, **rest):
    return [[(0, 2, 1.5), (2, len(text), -0.25)] for text in completions]

def each(completions, **rest):
    tokenizer = AutoTokenizer.from_pretrained("model")
    return [[float(place) for place, _ in enumerate(tokenizer(text)["input_ids"])] for text in completions]
"""
KINDS = {
    "reward model, sequence": ("rm-sequence", {}),
    "reward model, differences": ("rm-ensemble", {"signal": PrefixDifference()}),
    "reward model, segments": ("rm-segment", {}),
    "implicit reward": (("policy",), {"reference": "model"}),
    "implicit reward, members": (("policy", "other"), {"reference": "model"}),
    "likelihood": ("policy", {"likelihood": "avg"}),
    "function": ("mine.py:number", {}),
    "function, spans": ("mine.py:spans", {}),
    "function, spans on tokens": ("mine.py:spans", {"tokenizer": "model"}),
    "function, numbers on tokens": ("mine.py:each", {"tokenizer": "model"}),
    "column": ("column:quality", {}),
    "column, of a role": ("column:reward", {}),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one source of every kind, which is the working directory."""
    folder = tmp_path_factory.mktemp("sources")
    model = save_tiny(folder / "model")
    moved(model, folder / "policy", 1)
    moved(model, folder / "other", 2)
    save_reward(model, folder / "rm-sequence", "sequence", SequenceHead())
    save_reward(model, folder / "rm-ensemble", "ensemble", Ensemble(members=3))
    save_reward(model, folder / "rm-segment", "segment", Segment(segmenter=Windows(size=2)))
    (folder / "mine.py").write_text(FUNCTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def opened(kind: str) -> Reward:
    """In float64, so that another batch differs in the last digits alone."""
    source, more = KINDS[kind]
    options: Any = {"runtime": lambda: open_runtime("cpu", "float64"), "max_length": 64, **more}
    return open_reward(source, RewardOptions(**options))


once_opened = cache(opened)
"""One that the laws share."""


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law: Callable[[Opened], None], kind: str) -> None:
    shared = iter([once_opened(kind)])
    law(lambda: next(shared, None) or opened(kind))


def test_every_kind_of_the_table_is_tried() -> None:
    """Here, or in a test of its own that keeps the laws."""
    tried = {kind.partition(",")[0] for kind in KINDS}
    for one in SOURCES:
        own = Path(__file__).with_name(f"test_{one.opens.partition(':')[0].rpartition('.')[2]}.py")
        assert one.name in tried or "tests.scoring.laws" in own.read_text(), one.name
        assert callable(resolve(one.opens))
        assert bool(one.form) == bool(one.pattern)
    options = RewardOptions(runtime=lambda: None, max_length=64)
    assert find_source("folder", options).name == "reward model"
    assert find_source("folder", replace(options, reference="other")).name == "implicit reward"
    assert find_source("folder", replace(options, likelihood="sum")).name == "likelihood"
    assert (is_text_source("a.py:f"), is_text_source("column:x"), is_text_source("folder")) == (True, True, False)
