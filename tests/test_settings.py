"""Laws of every setting: a value of another type, out of its range or not finite is refused where the object is made, from a file too."""

import copy
import dataclasses
import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain import catalog
from finegrain.checked import PositiveInt, checked, field_hints, list_alternatives, plain_type
from finegrain.cli import main
from finegrain.commands import COMMANDS, resolve
from finegrain.commands.settings import Common, Compute, RowCount, RowLimits, Training
from finegrain.configure import field_from_json, settings_from_file, to_kebab
from finegrain.errors import FinegrainError, UsageError
from finegrain.objectives.dpo import DPO
from finegrain.train.optim import Optim


def inner(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from inner(part)


def reached() -> list[type]:
    """Every settings class below the commands and the methods."""
    found: list[type] = []
    waiting = [resolve(command.settings) for command in COMMANDS.values()] + [catalog.load(m.family, m.name) for m in catalog.METHODS]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.append(kind)
            hints = [part for hint in field_hints(kind).values() for part in inner(hint)]
            waiting += [part for part in hints if isinstance(part, type) and dataclasses.is_dataclass(part)]
    return sorted((kind for kind in found if dataclasses.fields(kind)), key=lambda kind: (kind.__module__, kind.__name__))


CLASSES = reached()
PLACEHOLDER = {str: "name.py:f", Path: Path("x"), float: 0.5, int: 3}


def made(kind: type, **values: Any) -> Any:
    """One of its defaults, with something in fields that have none."""
    given_: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            hint = next(list_alternatives(field_hints(kind)[field.name]))
            plain = plain_type(hint)[0]
            inside = typing.get_args(plain)[:1]
            word = typing.get_origin(plain) is Literal
            given_[field.name] = inside[0] if word else (PLACEHOLDER[inside[0]],) * 2 if inside else PLACEHOLDER.get(plain, DPO())
    if kind.__name__ in ("ScoreSettings", "BaselineSettings"):
        given_ |= {"reward": "f.py:f"}
    if kind.__name__ == "CalibrateSettings":
        given_ |= {"out": Path("c.json")}
    if kind.__name__ == "AnnotateSettings":
        given_ |= {"by": "http://localhost/v1"}
    if kind.__name__ == "MarkSettings":
        given_ |= {"data": "d"}
    if kind.__name__ == "CompareSettings":
        given_ |= {"scores": (Path("a"), Path("b"))}
    if kind.__name__ == "MergeSettings":
        given_ |= {"data": "d"}
    return kind(**{**given_, **values})


def wrong(hint: Any) -> list[Any]:
    """Values that no field of this type may take; none for what any object may fill."""
    kinds = [plain_type(member)[0] for member in list_alternatives(hint)]
    if Any in kinds:
        return []
    found: list[Any] = [b"bytes", {"a": 1}]
    if float in kinds:
        found += [math.nan, math.inf, -math.inf, "0.1", True, 10**400, [0.1]]
    if int in kinds:
        found += [1.5, True, "1", 2**40, -(2**40), math.nan]
    if bool in kinds:
        found += [1, "true"]
    if str in kinds and Path not in kinds:
        found += [3, ["a"]]
    if any(typing.get_origin(kind) is Literal for kind in kinds):
        found += ["no such word", b"word"] if {int, float} & set(kinds) else ["no such word", 3]
    if type(None) not in kinds:
        found += [None]
    return found


def remade(default: Any, name: str, value: Any) -> Any:
    """The same object with one other value, checked as its constructor checks it (whose types the tests' own hook looks at first)."""
    other = copy.copy(default)
    object.__setattr__(other, name, value)
    other.__post_init__()
    return other


def test_collected() -> None:
    print(f"{len(CLASSES)} classes with settings")
    assert len(CLASSES) > 90


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}")
def test_a_value_of_another_type_is_refused(kind: type) -> None:
    """In Python by the constructor, and in a file by the same rule."""
    default = made(kind)
    for field in dataclasses.fields(kind):
        for value in wrong(field_hints(kind)[field.name]):
            with pytest.raises(UsageError, match=field.name):
                remade(default, field.name, value)
            with pytest.raises(UsageError):
                field_from_json(kind, field.name, value)


RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "beta": ([0.0, -1.0], [1e-6, 5.0]),
    "epochs": ([0, -1.0, 1e300], [0.001, 3]),
    "batch_size": ([0, -4], [1]),
    "micro_tokens": ([0], [1]),
    "limit": ([0, -1], [1]),
    "max_steps": ([0, -1], [1]),
    "max_length": ([1, 0, -5], [2]),
    "holdout": ([1.0, -0.1], [0.5]),
    "samples": ([-1], [0]),
    "examined": ([-1], [0]),
    "seed": ([-1], [0]),
    "lr": ([-1e-9], [0.001]),
    "warmup": ([1.1, -0.1], [0.0, 1.0]),
    "beta1": ([1.0], [0.0]),
    "weight_decay": ([-0.1], [0.0]),
}
"""By name, what no class may take and what every class must."""
OTHERWISE = {
    *(("Inference", "beta"), ("KL", "beta"), ("MetaRM", "samples"), ("Sampled", "samples"), ("InReward", "beta"), ("InLoss", "beta")),
    *((name, "epochs") for name in ("PPO", "RLOO", "GRPO", "ReinforcePP", "Algorithm")),
    *(("FitBounds", "warmup"), ("FitBounds", "epochs"), ("FittedValue", "epochs"), ("MistralPlus", "beta")),
}
"""Weights that may be 0, a file, and counts."""


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    bad, good = RANGES[name]
    tried = 0
    for kind in CLASSES:
        if name not in field_hints(kind) or (kind.__name__, name) in OTHERWISE:
            continue
        tried += 1
        default = made(kind)
        for value in bad:
            with pytest.raises(UsageError, match=name):
                remade(default, name, value)
        for value in good:
            assert getattr(remade(default, name, value), name) == value
    assert tried


def test_python_objects_are_checked_too() -> None:
    with pytest.raises(UsageError, match=r"beta must be a finite number above 0, got nan \(a setting of DPO\)"):
        DPO(beta=math.nan)
    with pytest.raises(UsageError, match="did you mean cosine"):
        remade(Optim(), "schedule", "cosinus")
    with pytest.raises(UsageError, match="common must be a Common"):
        remade(made(resolve("commands.sft:SftSettings")), "common", {"limit": 3})
    with pytest.raises(UsageError):
        dataclasses.replace(Training(), batch_size=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("objective: simpoo", ["simpoo", "simpo"]),
        ("objective: {beta: 0.2}", ["objective", "method"]),
        ("objective: [dpo]", ["objective", "method"]),
        ("objective:", ["objective is empty"]),
        ("objective: {method: dpo, beta: high}", ["objective.beta", "'high'"]),
        ("credit: {method: asr, signal: implicitt}", ["implicitt", "implicit"]),
        ("credit: {method: asr, signal: {beta: 1}}", ["credit.signal", "choice", "implicit"]),
        ("credit: {method: asr, signal: {choice: implicit, bta: 1}}", ["bta", "beta"]),
        ("optim: {schedule: cosinus}", ["cosinus", "cosine"]),
        ("common: {dtype: float8}", ["float8", "float32"]),
        ("gate: {empty: explode}", ["explode", "drop"]),
        ("training: {epochs: [1]}", ["training.epochs", "[1]"]),
        ("common: {lr: true}", ["common.lr", "True"]),
        ("common: {lr: .nan}", ["common.lr", "nan"]),
        ("common: {max_steps: 1.5}", ["common.max_steps", "1.5"]),
        ("common: {limit: 0}", ["common.limit", "at least 1"]),
        ("data: 3", ["data", "text"]),
        ("epochs: 3", ["epochs", "training: {epochs: ...}"]),
        ("training.epochs: 3", ["training: {epochs: ...}"]),
        ("training: 3", ["training"]),
        ("common: {lr: 1.0, lr: 2.0}", ["'lr' occurs twice"]),
        ("data: 2001-99-99", ["cannot read"]),
        ("common: &a {lr: *a}", ["common.lr"]),
        ("{[1]: 2}", ["cannot read"]),
        ("3: 4", ["unknown setting", "3"]),
        ("- 1", ["no settings"]),
    ],
)
def test_a_settings_file_says_where_it_is_wrong(text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert main(["prefer", "--config", str(file), "--model", "m", "--data", "d", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.json", b'{"data": "a", "data": "b"}'), ("a.yaml", b"\xff\xfe\x00"), ("a.json", b"[" * 100_000), ("a.yaml", b"[" * 900)],
)
def test_a_damaged_settings_file(name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(data)
    assert main(["prefer", f"--config={tmp_path / name}"]) == 2
    assert name in capsys.readouterr().err


def test_a_method_may_stand_as_its_name() -> None:
    """`objective: simpo` is the method with its defaults, as is `segmenter: tokens` of a choice; numbers are those of the command line."""
    found = settings_from_file(
        resolve("commands.prefer:PreferSettings"),
        {"objective": "simpo", "credit": {"method": "asr", "segmenter": "tokens"}, "common": {"lr": "1e-6"}, "out": "run", "training": {"epochs": 2}},
        "file",
    )
    assert catalog.get_name(found["objective"]) == "simpo"
    assert to_kebab(type(found["credit"].segmenter).__name__) == "tokens"
    assert found["common"] == Common(lr=1e-6)
    assert found["out"] == Path("run")
    assert found["training"] == Training(epochs=2.0)


KEYS = st.sampled_from(["method", "choice", "beta", "lr", "epochs", "signal", "empty"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["dpo", "asr", "implicit", "1e-3", "cosine"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["objective", "credit", "common", "training", "optim", "gate", "lora", "data", "model", "out", "epochs", "x"])


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.dictionaries(names, values, max_size=4))
def test_any_file_is_read_or_refused_in_words(data: dict[str, Any]) -> None:
    """Nothing but an object of checked settings or an error of ours comes out; what is read is what the file says."""
    for text in (yaml.safe_dump(data), json.dumps(data)):
        try:
            found = settings_from_file(resolve("commands.prefer:PreferSettings"), yaml.safe_load(text), "file")
        except FinegrainError:
            continue
        assert found.keys() == data.keys()


def test_a_class_keeps_the_checks_of_its_base() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    @checked
    class Base:
        low: float = 0.0
        high: float = 1.0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise UsageError("low is above high")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    @checked
    class Own(Base):
        count: PositiveInt = 1

    for values, message in (({"low": 2.0}, "low is above high"), ({"count": 0}, "count"), ({"high": "wide"}, "high")):
        with pytest.raises(UsageError, match=message):
            Own(**values)
    assert Own(high=3.0, count=2).count == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_shared_settings_are_written_once(name: str) -> None:
    """A command that has a field of `RowCount`, `RowLimits` or `Compute` has it from there, and so its meaning."""
    kind = resolve(COMMANDS[name].settings)
    left = {field.name for field in dataclasses.fields(kind)}
    for shared in (RowCount, RowLimits, Compute):
        own = {field.name for field in dataclasses.fields(shared)} & left
        assert not own or issubclass(kind, shared), f"{kind.__name__} spells {own} itself"
        left -= own
