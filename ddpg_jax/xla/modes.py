"""Numeric modes of jax that every run has, whatever the process was started with."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

_P = ParamSpec("_P")
_T = TypeVar("_T")

_HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump")
"""Options of XLA that change no number, or that are recorded otherwise."""


@contextmanager
def numeric_modes() -> Generator[None]:
    """Float32, random keys of threefry, and numbers by their position, for whatever is traced or run inside.

    So `JAX_ENABLE_X64`, `JAX_DEFAULT_PRNG_IMPL` and `JAX_THREEFRY_PARTITIONABLE` change no run, and none that goes on.
    """
    with jax.enable_x64(False), jax.default_prng_impl("threefry2x32"), jax.threefry_partitionable(True):
        yield


def in_numeric_modes(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same function, under `numeric_modes`."""

    @wraps(function)
    def call(*arguments: _P.args, **named: _P.kwargs) -> _T:
        with numeric_modes():
            return function(*arguments, **named)

    return call


def numeric_flags() -> str:
    """The options of XLA in `XLA_FLAGS` that may change numbers, in the order of the alphabet."""
    words = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted(word for word in words if not word.startswith(_HARMLESS)))
