"""Errors a user can do something about, each with the exit code of the command line; how foreign text is shown."""

from __future__ import annotations

import traceback
from typing import ClassVar


class DdpgJaxError(Exception):
    """Base of all errors that `ddpg_jax` raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(DdpgJaxError):
    """The configuration is wrong; the message lists every mistake."""

    exit_code = 2


class EnvironmentFault(DdpgJaxError):
    """An environment cannot be trained, broke, or reported what it must not.

    Args:
      message: what happened, where.
      trace: the traceback of what it raised in another process, as text.
    """

    exit_code = 3

    def __init__(self, message: str = "", trace: str = "") -> None:
        super().__init__(message)
        self._trace = trace

    @property
    def trace(self) -> str:
        """The traceback of what the environment raised, as text; empty: it raised nothing."""
        return self._trace or ("".join(traceback.format_exception(self.__cause__)) if self.__cause__ else "")


class CallbackError(EnvironmentFault):
    """A callback of the user's failed; as where an environment does, all before that is saved."""


class NotFiniteError(DdpgJaxError):
    """All seeds have diverged, or a number that is used or reported is NaN or infinite."""

    exit_code = 4


class StorageError(DdpgJaxError):
    """A run directory or a stored file cannot be used."""

    exit_code = 5


class Interrupted(DdpgJaxError):
    """A signal ended the run; it is saved and can be resumed. A notebook shows the message alone, and goes on."""

    exit_code = 75

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def printable(text: object, *, lines: bool = False) -> str:
    r"""Shows text that somebody else may have written: what a terminal would obey, or hide, is escaped as in Python.

    Escaped are control characters, marks that turn the direction of reading, characters without width, separators of
    lines, and halves of surrogate pairs: all that `str.isprintable` denies. Text of several lines that is our own is
    told by `lines`; what is put into it goes through this function alone. Where a console reads `[markup]`, markup is
    switched off, not escaped.

    Args:
      text: anything; its `str`.
      lines: line feeds stay as they are.

    Returns:
      The text, in which every character is printable.

    >>> printable("run\x1b[2J")
    'run\\x1b[2J'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    kept = "\n" if lines else ""
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode() for each in shown
    )
