"""Signals that end a run in good order."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, the end that a system or a cluster asks for, and the notice that some clusters give before it."""


class StopRequest:
    """Notes `SIGNALS` while it is the context, so that a loop can end at its next boundary; a second Ctrl-C aborts.

    An abort is a KeyboardInterrupt. One that falls into what the garbage collector calls, as it does when jax compiles,
    could only be printed there, and is raised again. Outside the main thread, where Python handles no signals, nothing
    is changed. Inside another one's context it is that other one, so that what was heard before counts.
    """

    _active: ClassVar[StopRequest | None] = None

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False
        """whether a signal is only noted, in `heard`, for `request` to be called where all processes of a job are"""
        self._heard: list[int] = []
        self._before: dict[int, Any] = {}
        self._hook_before: Callable[[sys.UnraisableHookArgs], Any] = sys.unraisablehook
        self._interrupted = False
        self._losing = False

    @classmethod
    def leave_to_system(cls) -> None:
        """Ends the context that there is, if there is one, and lets what it heard do what it does without it."""
        active = cls._active
        if active is not None:
            active.__exit__()
            for number in active._heard:
                signal.raise_signal(number)

    def is_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.requested

    def request(self) -> None:
        """Asks for a stop as a signal does."""
        self.requested = True

    @property
    def heard(self) -> bool:
        """Whether there was a signal."""
        return bool(self._heard)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            if (active := StopRequest._active) is not None:
                active._listen()  # again: jax's service for several processes takes SIGTERM for itself
                return active
            StopRequest._active = self
            self._before = self._listen()
            self._hook_before, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook, StopRequest._active = self._hook_before, None
        self._before = {}

    def _listen(self) -> dict[int, Any]:
        """Handles `SIGNALS`, and returns what did so before."""
        return {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self._heard.append(number)
        self.requested |= not self.deferred

    def _lost(self, error: sys.UnraisableHookArgs) -> None:
        """Of an error that could not be raised further; an abort comes again as soon as this is over."""
        if not (self._interrupted and error.exc_type is KeyboardInterrupt):
            self._hook_before(error)
            return
        self._losing = True
        try:
            threading.Thread(target=self._abort_again, daemon=True).start()
        finally:
            self._losing = False

    def _abort_again(self) -> None:
        """In a thread: inside of what hears of lost errors an abort would be lost for good."""
        while self._losing:
            time.sleep(0.001)
        _thread.interrupt_main()
