"""One tiny model for all tests, and a cache and a folder for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from finegrain.models import probe
from finegrain.recipes.annotation import asking
from tests.known_probes import remember
from tests.recipes.annotating import Annotating
from tests.recipes.command import Command
from tests.recipes.stand_in import serve
from tests.tiny import save_tiny, write_pairs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads what another one computed."""
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def known_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was checked is not checked again."""
    monkeypatch.setattr(probe, "probe_model", remember(probe.probe_model))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder."""
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pairs."""
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", 24)


@pytest.fixture
def command(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line."""
    return Command(model, data, tmp_path, capsys)


@pytest.fixture
def annotating(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Annotating]:
    """`finegrain annotate` and a stand-in for a server of models; tries follow one another without a wait."""
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.0)
    with serve() as server:
        yield Annotating(command, server, tmp_path)
