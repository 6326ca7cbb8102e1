"""How an error is told on the terminal."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from ddpg_jax.errors import DdpgJaxError, EnvironmentFault

_FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line \d+.*\n(?:    .*\n)*', re.MULTILINE)
_SHOWN = 3


def describe(error: DdpgJaxError) -> list[str]:
    """The lines that tell an error: its message, its notes, and where in the user's code it arose."""
    trace = error.trace if isinstance(error, EnvironmentFault) else ""
    return [f"ddpg-jax: {error}", *_last_frames(trace), *getattr(error, "__notes__", ())]


def no_device(error: Exception) -> str | None:
    """What to say where jax finds no device to run on; None: the error is another one."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or Path(frames[-1].filename).name != "xla_bridge.py":
        return None
    asked = os.environ.get("JAX_PLATFORMS")
    reason = str(error).partition("\n")[0].rstrip(".") or "none of these platforms is here"
    return (
        f"jax finds no device with JAX_PLATFORMS={asked!r}: {reason}; unset it, or name a platform that is installed "
        "and has a device, as cpu"
    )


def _last_frames(trace: str) -> list[str]:
    """The last frames outside of this package and of what is installed; if there are none, the very last."""
    own = str(Path(__file__).parents[1])
    frames = list(_FRAME.finditer(trace[trace.rfind("Traceback (most recent call last)") :]))
    foreign = [frame for frame in frames if not frame["file"].startswith((own, "<"))]
    theirs = [frame for frame in foreign if "site-packages" not in Path(frame["file"]).parts] or foreign[-1:]
    return [frame[0].rstrip() for frame in theirs[-_SHOWN:]]
