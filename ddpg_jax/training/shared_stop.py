"""One process's stop stops all processes of a job, at the same report.

Each keeps one entry in the job's table of keys, which the coordinator holds: the step of its last report, and whether
it asks for a stop. At a report it writes its own entry and waits until every other one is as far. Nobody goes beyond a
report at which a stop was asked for, so all read the same there. A table, and not a gathering of arrays: after a crash
processes may resume from unlike steps, and one may have ended, where arrays would wait for each other for ever.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

if TYPE_CHECKING:
    from types import TracebackType

    from ddpg_jax.training.callbacks import CallbackFn, CallbackReport
    from ddpg_jax.training.signals import StopRequest

_KEYS = "ddpg_jax/stop/"
_LOOK_SECONDS = 0.005
_BEGUN, _OVER = -1, 2**62
"""Steps of a process that has reported nothing yet, and of one that will report nothing more."""


class _Entry(NamedTuple):
    """What a process says of itself."""

    step: int
    stop: bool


class SharedStop:
    """Shares stops with the other processes while it is the context; of a job of one it does nothing.

    Args:
      stop: what hears signals here. Meanwhile they only count at the next report.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop, self._index, self._count = stop, jax.process_index(), jax.process_count()
        self._client: Any = _client() if self._count > 1 else None

    @property
    def callbacks(self) -> tuple[CallbackFn, ...]:
        """What is to be called at each report."""
        return () if self._client is None else (self._share,)

    def __enter__(self) -> SharedStop:
        if self._client is not None:
            self._stop.deferred, self._stop.requested = True, False
            self._tell(_Entry(_BEGUN, stop=False))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._client is not None:
            self._tell(_Entry(_OVER, stop=kind is not None))
            self._stop.deferred = False

    def _share(self, report: CallbackReport) -> None:
        """Waits until all processes are at this report, and stops if one of them asks for it."""
        self._tell(_Entry(report.step, self._stop.heard))
        entries = self._read()
        while min(entry.step for entry in entries) < report.step:
            time.sleep(_LOOK_SECONDS)
            entries = self._read()
        if any(entry.stop for entry in entries if entry.step in (report.step, _OVER)):
            report.stop()

    def _tell(self, entry: _Entry) -> None:
        self._client.key_value_set(f"{_KEYS}{self._index}", f"{entry.step} {int(entry.stop)}", allow_overwrite=True)

    def _read(self) -> list[_Entry]:
        """The entries of all processes; one that has none yet has not begun."""
        found = {key.removeprefix(_KEYS): value.split() for key, value in self._client.key_value_dir_get(_KEYS)}
        absent = [str(_BEGUN), "0"]
        texts = [found.get(str(i), absent) for i in range(self._count)]
        return [_Entry(int(step), stop == "1") for step, stop in texts]


def _client() -> Any:
    """The job's table of keys, to which jax has no public way."""
    from jax._src import distributed

    return distributed.global_state.client
