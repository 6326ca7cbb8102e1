"""Signals that end a run in good order."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Notes Ctrl-C while it is the context, so that a loop can end at its next boundary; a second one aborts.

    Outside the main thread, where Python handles no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
