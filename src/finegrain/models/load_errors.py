"""Failures to load, each as one line of a ModelError: what transformers, peft, tokenizers and safetensors raise while reading a checkpoint."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from finegrain.errors import FinegrainError, ModelError
from finegrain.terminal import write_line

RAISED = (
    OSError,  # files that are missing, unreadable, or not on the Hub
    ValueError,  # most checks of the libraries; invalid JSON
    TypeError,  # entries of an unexpected type
    AttributeError,
    LookupError,  # unknown names (rope types, activations, adapter types)
    ImportError,  # packages of kernels, quantisation and slow tokenizers
    RuntimeError,  # mismatched shapes; out of memory; JSON nested too deeply
    ArithmeticError,  # sizes of 0
    AssertionError,  # torch's check of the padding index
    MemoryError,
    SafetensorError,
    StrictDataclassError,  # config entries of a wrong type
)
"""Exceptions that the libraries raise for damaged or unknown files."""
SHOWN = 3
"""Maximum number of weight names in a message."""
LONGEST = 400
"""Maximum number of characters of a library's message that are shown."""


@contextmanager
def explain_load_errors(what: str, facts: Mapping[str, Any] | None = None, *, remedy: str = "") -> Iterator[None]:
    """Turns failures inside into a ModelError that begins with `what`; `facts`, the config, names the entry with the unknown value."""
    try:
        yield
    except FinegrainError:
        raise
    except RAISED as error:
        raise ModelError(f"{what}: {describe_error(error, facts)}{remedy and '; '}{remedy}") from error


def describe_error(error: BaseException, facts: Mapping[str, Any] | None = None) -> str:
    """One line: the cause and, where known, the remedy."""
    if isinstance(error, KeyError) and error.args:
        asked = find_entry(facts or {}, error.args[0])
        if asked:
            return f"config.json asks for {asked} {error.args[0]!r}, which transformers {transformers.__version__} does not know; a newer version may"
        named = one_line(error.args[0])
        return named if " " in named else f"an entry {named!r} is missing or unknown"
    if isinstance(error, StrictDataclassError):
        return f"{one_line(error)}; fix config.json"
    if isinstance(error, ImportError):
        return f"it needs a package that is not installed: {one_line(error)}"
    if isinstance(error, RecursionError):
        return "a file is nested too deeply"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, SafetensorError):
        return f"{one_line(error)}; a file is damaged or incomplete: download it again"
    if isinstance(error, (TypeError, AttributeError)):
        return f"a file or an entry of it has an unexpected type ({one_line(error)})"
    return one_line(error) or type(error).__name__


def one_line(text: object) -> str:
    """Foreign text on one line, without colours, with invisible characters escaped, and cut."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(text)).split())
    seen = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in plain)
    return seen.rstrip(".") if len(seen) <= LONGEST else f"{seen[:LONGEST]} …"


def list_some(names: Sequence[str]) -> str:
    """The first names, and the number of all where there are more."""
    return f"{', '.join(map(one_line, names[:SHOWN]))}{f', {len(names)} in all' if len(names) > SHOWN else ''}"


def print_line(text: str) -> None:
    """Prints one line to the user, from the first process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        write_line(text)


def find_entry(facts: Mapping[str, Any], value: object) -> str | None:
    """The dotted name of the first entry of a config with this text; None where there is none."""
    for name, one in facts.items():
        if isinstance(value, str) and one == value:
            return str(name)
        if isinstance(one, Mapping):
            inner = find_entry(one, value)
            if inner:
                return f"{name}.{inner}"
    return None
