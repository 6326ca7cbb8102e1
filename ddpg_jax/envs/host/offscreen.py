"""What draws MuJoCo's pictures where there is no display."""

from __future__ import annotations

import ctypes.util
import functools
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def offscreen() -> Generator[None]:
    """MuJoCo draws by EGL meanwhile where Linux has no display, or by OSMesa where EGL is not installed.

    Whatever MUJOCO_GL says before wins. It is read where the first picture is drawn, and by dm_control as it is
    imported.
    """
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if shown or "MUJOCO_GL" in os.environ or not sys.platform.startswith("linux"):
        yield
        return
    os.environ["MUJOCO_GL"] = without_display()
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL", None)


@functools.cache
def without_display() -> str:
    """What MUJOCO_GL is to be without a display, by the libraries that are installed; "egl" if none is."""
    return "osmesa" if _find("EGL") is None and _find("OSMesa") is not None else "egl"


def _find(library: str) -> str | None:
    return ctypes.util.find_library(library)
