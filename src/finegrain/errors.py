"""The exception tree.

FinegrainError (ValueError)        an error that the user can fix; the command line prints it without a traceback
├── UsageError                     an unknown name, a setting that contradicts another      exit 2
├── DataError                      rows, columns, spans, templates                          exit 3
├── ModelError                     a path without a model, an unsupported architecture      exit 4
├── CreditError                    a credit that selects no token or every token            exit 5
├── NonFiniteError                 a loss or gradient that is not finite                    exit 6
├── CheckpointError                a run directory that cannot be written or resumed        exit 7
└── EndpointError                  a server that cannot be reached or answers nothing usable  exit 8
Interrupted (KeyboardInterrupt)    Ctrl-C after the state was saved                         exit 130
"""

import difflib
from collections.abc import Iterable


class FinegrainError(ValueError):
    """An error that the user can fix."""

    exit_code = 1


class UsageError(FinegrainError):
    """An unknown name or a contradiction between settings."""

    exit_code = 2


class DataError(FinegrainError):
    """Rows, columns, spans or templates that cannot be used."""

    exit_code = 3


class ModelError(FinegrainError):
    """A model or tokenizer that cannot be used."""

    exit_code = 4


class CreditError(FinegrainError):
    """A token credit that would train on no token, or on every token."""

    exit_code = 5


class NonFiniteError(FinegrainError):
    """A loss or gradient that is NaN or infinite, or a loss without a lower bound that has fallen far."""

    exit_code = 6


class CheckpointError(FinegrainError):
    """A run directory that cannot be written, read or resumed."""

    exit_code = 7


class EndpointError(FinegrainError):
    """A server of models that cannot be reached, refuses the key or the model, or answers nothing that can be used."""

    exit_code = 8


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the state of the run was saved."""

    exit_code = 130


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name: lists similar names, or all of a short table."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
