"""Standard streams that are closed, full, or unable to encode: no command ends, or ends otherwise, for their sake."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from ddpg_jax.errors import printable


def prepare_streams() -> None:
    """Makes the standard streams of a program safe: to be called before anything else.

    Descriptors that are closed are opened to nowhere, so that no file of a run takes their number and gets what a
    library prints. What a stream cannot encode is written escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    if sys.stderr is None:  # then argparse would print a mistake to standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # none, or another object in its place
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def tell(text: str) -> None:
    """Writes lines to standard error, if somebody hears them."""
    stream: TextIO | None = sys.stderr
    if stream is not None:
        with suppress(OSError, ValueError):  # full, broken, closed
            stream.write(f"{printable(text, lines=True)}\n")
            stream.flush()


def flush_streams() -> None:
    """Writes what is buffered; gives up what cannot be written, so that the interpreter's end does not fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (ValueError, AttributeError):  # closed, none
            continue
        except OSError:
            with suppress(OSError, ValueError):
                silence = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silence, stream.fileno())
                os.close(silence)
