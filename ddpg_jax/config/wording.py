"""How fields and arguments are written where the user stands: at the command line, or in Python."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_AT_COMMAND_LINE: ContextVar[bool] = ContextVar("_AT_COMMAND_LINE", default=False)


@contextmanager
def command_line() -> Generator[None]:
    """Messages made within speak of the command line; elsewhere of Python."""
    token = _AT_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _AT_COMMAND_LINE.reset(token)


def at_command_line() -> bool:
    """Whether the user typed a command."""
    return _AT_COMMAND_LINE.get()


def overrides_name() -> str:
    """What the values are called that win over those of files."""
    return "command line" if at_command_line() else "arguments"


def option(path: str) -> str:
    """How a field, or an argument of a function, is set.

    Args:
      path: `section.field`, a field, or an argument, as `algorithm.tau`, `total_steps`, `init_from`.

    Returns:
      `--algorithm.tau` at the command line, `algorithm={"tau": ...}` in Python.
    """
    if at_command_line():
        return f"--{path.replace('_', '-')}"
    section, dot, field = path.partition(".")
    return f'{section}={{"{field}": ...}}' if dot else f"{section}="
