"""A bound on the time that a call in this process may take."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_MAIN = threading.main_thread().ident
_DEBUGGERS = ("bdb", "pdb")

_PARTS = 8
"""Of the time, after each of which the timer rings: while a process is suspended it rings once at most."""

_rung = 0
"""How often it rang since it was set."""


class Timeout:
    """Interrupts what runs inside it, with `TimeoutError`, where it takes too long.

    It is a context manager, to be entered again and again, over the process's one interval timer. Python code is
    interrupted wherever it is, sleeping and waiting included; a function written in C that never returns is not, as no
    signal handler runs before it does. Nothing is bounded in any other thread than the main one, where the system has
    no such timer, where the signal has another handler, or while the standard library's debugger, or one over it
    (IPython's), waits for its user. While the process is suspended, as by Ctrl-Z, its time stands still.

    Args:
      seconds: for all that is inside; None for as long as it takes.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds if seconds is not None and _may_ring() else None

    def __enter__(self) -> None:
        global _rung
        if self._seconds is not None and threading.get_ident() == _MAIN:
            _rung = 0
            signal.setitimer(signal.ITIMER_REAL, self._seconds / _PARTS, self._seconds / _PARTS)

    def __exit__(self, *raised: object) -> None:
        if self._seconds is not None and threading.get_ident() == _MAIN:
            signal.setitimer(signal.ITIMER_REAL, 0.0)


def _may_ring() -> bool:
    """Takes the signal, where it can be had."""
    if not hasattr(signal, "setitimer") or threading.get_ident() != _MAIN:
        return False
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _ring)
    return signal.getsignal(signal.SIGALRM) is _ring


def _ring(number: int, frame: FrameType | None) -> None:
    global _rung
    seconds, _rung = signal.getitimer(signal.ITIMER_REAL)[1] * _PARTS, _rung + 1
    if _rung < _PARTS:
        return
    _rung = 0
    if seconds and not _not_now(frame):
        raise TimeoutError(f"no answer within {seconds:g} s (env.timeout)")


def _not_now(frame: FrameType | None) -> bool:
    """Whether a debugger waits; or the timer is being set or taken back, which an error would leave undone."""
    own = Timeout.__enter__.__code__, Timeout.__exit__.__code__
    while frame is not None and frame.f_code not in own and frame.f_globals.get("__name__") not in _DEBUGGERS:
        frame = frame.f_back
    return frame is not None
