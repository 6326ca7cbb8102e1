"""Errors a user can do something about, each with the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar


class DdpgJaxError(Exception):
    """Base of all errors that `ddpg_jax` raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(DdpgJaxError):
    """The configuration is wrong; the message lists every mistake."""

    exit_code = 2


class EnvironmentFault(DdpgJaxError):
    """An environment cannot be trained, broke, or reported what it must not."""

    exit_code = 3


class NotFiniteError(DdpgJaxError):
    """All seeds have diverged, or a number that is used or reported is NaN or infinite."""

    exit_code = 4


class StorageError(DdpgJaxError):
    """A run directory or a stored file cannot be used."""

    exit_code = 5


class Interrupted(DdpgJaxError):
    """A signal ended the run; it is saved and can be resumed."""

    exit_code = 75
