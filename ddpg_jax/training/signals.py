"""Signals that end a run in good order."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, the end that a system or a cluster asks for, and the notice that some clusters give before it."""


class StopRequest:
    """Notes `SIGNALS` while it is the context, so that a loop can end at its next boundary; a second Ctrl-C aborts.

    An abort is a KeyboardInterrupt. One that falls into what the garbage collector calls, as it does when jax compiles,
    could only be printed there, and is raised again. Outside the main thread, where Python handles no signals, nothing
    is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}
        self._hook_before: Callable[[sys.UnraisableHookArgs], Any] = sys.unraisablehook
        self._interrupted = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            self._hook_before, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook_before

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self.requested = True

    def _lost(self, error: sys.UnraisableHookArgs) -> None:
        """Of an error that could not be raised further; an abort comes again as soon as this is over."""
        if self._interrupted and error.exc_type is KeyboardInterrupt:
            threading.Timer(0.001, _thread.interrupt_main).start()
        else:
            self._hook_before(error)
