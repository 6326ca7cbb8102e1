"""The forms of an exported policy, and whether what they need is installed; asked before jax is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError

FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "safetensors": ("", ()),
    "numpy": ("", ()),
    "stablehlo": ("export", ("flatbuffers",)),
    "onnx": ("onnx", ("onnx", "onnxruntime")),
}
"""The forms, each with its extra and the packages of it."""

DEFAULT_FORMS = ("safetensors", "numpy")


def check_forms(to: Sequence[str]) -> tuple[str, ...]:
    """The forms that are asked for, in order.

    Raises:
      ConfigError: there is no such form, or what it needs is not installed.
    """
    named = (to,) if isinstance(to, str) else tuple(to)
    unknown = [name for name in named if name not in FORMS]
    if unknown or not named:
        shown = repr(unknown[0]) if unknown else "nothing"
        raise ConfigError(f"{option('to')}: expected {', '.join(FORMS)}, or several of them, came {shown}")
    for name in named:
        extra, packages = FORMS[name]
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            raise ConfigError(
                f'{name} needs {", ".join(missing)}, which is not installed: pip install "ddpg-jax[{extra}]"'
            )
    brought = {"safetensors"} if "numpy" in named else set[str]()
    return tuple(name for name in FORMS if name in {*named, *brought})
