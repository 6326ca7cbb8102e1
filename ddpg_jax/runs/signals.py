"""Signals that end a run in good order."""

from __future__ import annotations

import _thread
import gc
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, the end that a system or a cluster asks for, and the notice that some clusters give before it."""


class StopRequest:
    """Notes `SIGNALS` while it is the context, so that a loop can end at its next boundary; a second Ctrl-C aborts.

    Outside the main thread, where Python handles no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}
        self._interrupted = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            if _loses_errors(frame):
                threading.Timer(0.001, _thread.interrupt_main).start()  # again, until the frame is done
                return
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self.requested = True


def _loses_errors(frame: FrameType | None) -> bool:
    """Whether a frame is a callback of the garbage collector, as jax has one: what is raised in it is only printed."""
    return frame is not None and any(frame.f_code is getattr(each, "__code__", None) for each in gc.callbacks)
