"""Calls with a time limit, in any thread and without signals, so that Ctrl-C works as usual.

A watcher thread raises an exception inside a call that runs too long; it takes effect at the next Python instruction, so a single
long C call is not interrupted. The watcher ends when nothing has been called for a while.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOKS = 8
"""How often the watcher checks within the limit."""


class _Stopped(BaseException):
    """Raised inside a call that ran too long; handlers of ordinary errors do not catch it."""


class TimeLimit:
    """Runs calls, and raises TimeoutError from one that takes longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._began: dict[int, float] = {}
        self._calls = 0
        self._watcher: threading.Thread | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        """What the call returns."""
        thread = threading.get_ident()
        try:
            self._begin(thread)
            try:
                return call()
            finally:
                self._end(thread)
        except _Stopped:
            self._end(thread)
            raise TimeoutError(f"took longer than {self.seconds:g} seconds") from None

    def _begin(self, thread: int) -> None:
        with self._lock:
            self._began[thread] = time.monotonic()
            self._calls += 1
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._watch, daemon=True, name="time limit")
                self._watcher.start()

    def _end(self, thread: int) -> None:
        with self._lock:
            if self._began.pop(thread, None) is None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def _watch(self) -> None:
        seen = -1
        while True:
            time.sleep(self.seconds / LOOKS)
            with self._lock:
                now = time.monotonic()
                for thread, began in list(self._began.items()):
                    if now - began > self.seconds:
                        del self._began[thread]
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stopped))
                if not self._began and seen == self._calls:
                    self._watcher = None
                    return
                seen = self._calls
