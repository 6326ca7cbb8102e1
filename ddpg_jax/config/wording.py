"""How fields and arguments are written where the user stands: at the command line, or in Python."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from ddpg_jax.config.plugins import imports_allowed
from ddpg_jax.config.schema import imported_names
from ddpg_jax.errors import printable

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

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


def option(path: str, value: str | None = None) -> str:
    """How a field, or an argument of a function, is set.

    Args:
      path: `section.field`, a field, or an argument, as `algorithm.tau`, `total_steps`, `init_from`.
      value: what to; None: that is left open.

    Returns:
      `--algorithm.tau` at the command line, `algorithm={"tau": ...}` in Python.
    """
    if at_command_line():
        words = [f"--{path.replace('_', '-')}", *([value] if value is not None else [])]
        return printable(shlex.join(words))
    section, dot, field = path.partition(".")
    shown = "..." if value is None else printable(repr(value))
    return f'{section}={{"{field}": {shown}}}' if dot else f"{section}={'' if value is None else shown}"


def resume_command(run_dir: str | Path, config: Config | None = None) -> str:
    """The command that goes on with a run, or the call in Python, as it can be pasted.

    Args:
      run_dir: its directory.
      config: the run; where its file names modules to import, that must be allowed again. None: as it is allowed now.
    """
    names = imports_allowed() if config is None else bool(imported_names(config.model_dump()))
    if not at_command_line():
        return f"ddpg_jax.resume_run({str(run_dir)!r}{', allow_imports=True' if names else ''})"
    return shlex.join(["ddpg-jax", "resume", str(run_dir), *(["--allow-imports"] if names else [])])
