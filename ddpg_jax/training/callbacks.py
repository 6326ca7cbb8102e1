"""Callbacks and loggers of one's own: what they are told at a report, and what becomes of what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np

from ddpg_jax.config.plugins import load
from ddpg_jax.errors import CallbackError, ConfigError
from ddpg_jax.runs.loggers.logger import Logger, Start, Status
from ddpg_jax.types import Evaluation, HostArray, Row, TrainState

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

_RESERVED = frozenset({"event", "seed", "step", "updates", "combination"})


class CallbackReport(NamedTuple):
    """What a callback is told at a report, every `logging.every` and `evaluation.every` steps and at the end.

    Attributes:
      config: the run.
      directory: where its files are.
      step: environment steps of each seed so far.
      updates: critic updates of each seed so far.
      rows: the lines of the record since the last report, with this step's evaluation.
      evaluation: of this step, leaves `[S, episodes]`; None without one, and in sweeps, whose rows tell of it.
      state: the learner, leaves `[S, ...]` with more lanes after the seeds where devices were filled up. It is to be
        read, not kept: its buffers are given away when the loop goes on, so copy what is to stay.
      stop: asks for the same stop as a signal: the run ends at this step, saved, and can be resumed.
    """

    config: Config
    directory: Path
    step: int
    updates: int
    rows: tuple[Row, ...]
    evaluation: Evaluation | None
    state: TrainState
    stop: Callable[[], None]


CallbackFn: TypeAlias = Callable[[CallbackReport], Mapping[str, Any] | None]
"""`report -> metrics` for the record, by name, each a number or one for each seed, `[S]`; or None."""


def own_callbacks(config: Config, callbacks: Sequence[CallbackFn] = ()) -> tuple[CallbackFn, ...]:
    """The callbacks that were handed over, and those that the configuration names.

    Raises:
      ConfigError: one is not there, or cannot be called.
    """
    named = [load("callback", name, "logging.callbacks") for name in config.logging.callbacks]
    for callback in (*callbacks, *named):
        if not callable(callback):
            raise ConfigError(f"the callback {callback!r} is no function: expected report -> metrics or None")
    return (*callbacks, *named)


def call(callbacks: Sequence[CallbackFn], report: CallbackReport, seeds: Sequence[int]) -> list[Row]:
    """Calls the callbacks, and makes a row of what they return for each seed; none where they return nothing.

    Raises:
      CallbackError: one raised, or returned what cannot be recorded.
    """
    found: dict[str, HostArray] = {}
    for callback in callbacks:
        name = getattr(callback, "__qualname__", type(callback).__qualname__)
        try:
            metrics = callback(report)
        except Exception as error:  # whatever it raises
            raise CallbackError(f"the callback {name} failed after {report.step} steps: {error!r}") from error
        found |= _check(name, metrics, len(seeds))
    if not found:
        return []
    columns = {name: values.tolist() for name, values in found.items()}
    return [
        {"event": "callback", "seed": seed, "step": report.step} | {name: each[i] for name, each in columns.items()}
        for i, seed in enumerate(seeds)
    ]


def _check(callback: str, metrics: Any, seeds: int) -> dict[str, HostArray]:
    """The metrics of a callback, each `[S]`.

    Raises:
      CallbackError: they are no numbers by name, of the right number, and finite.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise CallbackError(f"the callback {callback} returned {metrics!r}: expected metrics by name, or None")
    found: dict[str, HostArray] = {}
    for name, value in cast("Mapping[Any, Any]", metrics).items():
        values = np.asarray(value)
        if not isinstance(name, str) or name in _RESERVED:
            raise CallbackError(f"the callback {callback} returned a metric named {name!r}: give it another name")
        if values.dtype.kind not in "biuf" or values.shape not in ((), (seeds,)):
            raise CallbackError(
                f"the callback {callback} returned {name}={value!r}: expected a number, or one of each of {seeds} seeds"
            )
        if not all(isfinite(each) for each in values.reshape(-1).tolist()):
            raise CallbackError(f"the callback {callback} returned {name}={value!r}, which is not finite")
        found[name] = np.broadcast_to(values, (seeds,))
    return found


def own_loggers(config: Config, warn: Callable[[str], None], loggers: Sequence[Logger] = ()) -> tuple[Logger, ...]:
    """The loggers that were handed over, and those that the configuration names; what they raise stops nothing.

    Raises:
      ConfigError: one is not there, or is none.
    """
    named = [load("logger", name, "logging.loggers") for name in config.logging.loggers]
    made = [make() if isinstance(make, type) or not hasattr(make, "write") else make for make in named]
    for logger in (*loggers, *made):
        lacking = [method for method in ("write", "sync", "close") if not callable(getattr(logger, method, None))]
        if lacking:
            raise ConfigError(f"the logger {logger!r} has no {' and no '.join(lacking)}: see docs/loggers.md")
    return tuple(GuardedLogger(logger, warn) for logger in (*loggers, *made))


class GuardedLogger:
    """A logger of a user's, whose errors end it and nothing else; they are warned of once.

    Args:
      logger: the logger.
      warn: is told.
    """

    def __init__(self, logger: Logger, warn: Callable[[str], None]) -> None:
        self._logger, self._warn, self._works = logger, warn, True

    def write(self, rows: list[Row]) -> None:
        """As in `Logger`."""
        self._call("write", [dict(row) for row in rows])  # its own, whatever it does to them

    def on_start(self, start: Start) -> None:
        """As in `Logger`."""
        self._call("on_start", start)

    def on_report(self, status: Status) -> None:
        """As in `Logger`."""
        self._call("on_report", status)

    def sync(self) -> int:
        """As in `Logger`."""
        self._call("sync")
        return 0

    def close(self) -> None:
        """As in `Logger`; also of one that has failed."""
        self._works = True
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        call: Any = getattr(self._logger, method, None)
        if call is None or not self._works:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever it raises
            self._works = False
            name = type(self._logger).__qualname__
            self._warn(f"warning: the logger {name} failed in {method} and is told nothing more: {error!r}")
