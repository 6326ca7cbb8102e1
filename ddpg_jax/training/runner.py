"""A loop that has begun, to its end: its reports are passed on, and what is due is saved. Runs and sweeps alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from ddpg_jax.errors import EnvironmentFault, Interrupted, StorageError

if TYPE_CHECKING:
    from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
    from ddpg_jax.training.checkpointer import Checkpointer
    from ddpg_jax.training.context import RunContext


class Boundary(Protocol):
    """Where a loop can be looked report: `Report`, or a chunk of a sweep."""

    @property
    def step(self) -> int:
        """Environment steps of each seed so far."""
        ...

    @property
    def due(self) -> bool:
        """Whether it is a report that the configuration asks for; else its state was only wanted."""
        ...

    @property
    def fault(self) -> EnvironmentFault | Interrupted | None:
        """What ends the run when the loop goes on: an environment failed, or a stop was heard before it was stepped."""
        ...


ReportT_contra = TypeVar("ReportT_contra", bound=Boundary, contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)
ReportT = TypeVar("ReportT", bound=Boundary)
Outcome = TypeVar("Outcome")


class Recorder(Protocol[ReportT_contra, Outcome_co]):
    """What keeps that which a loop reports."""

    def is_last(self, report: ReportT_contra) -> bool:
        """Whether the loop is at its end."""
        ...

    def must_save(self, report: ReportT_contra) -> bool:
        """Whether a checkpoint belongs here, whatever the clock says."""
        ...

    def record(self, report: ReportT_contra) -> None:
        """Records a report that was due."""
        ...

    def checkpoint(self, report: ReportT_contra, *, unrecorded: bool = False) -> Checkpoint:
        """All that is needed to go on from here; `unrecorded`: with this report, which could not be recorded."""
        ...

    def finish(self, report: ReportT_contra, save: Callable[[Callable[[], Checkpoint]], None]) -> Outcome_co:
        """Writes the result; `save` writes a last checkpoint."""
        ...

    def stop(self, report: ReportT_contra | None) -> Outcome_co:
        """Ends before the end, as that was asked for; all is saved. None: nothing was reported."""
        ...


def drive(
    reports: Iterable[ReportT],
    recorder: Recorder[ReportT, Outcome],
    checkpointer: Checkpointer,
    context: RunContext,
) -> Outcome:
    """Brings a loop to its end: has its reports recorded, and saves where that is due.

    Args:
      reports: the loop. It is not asked for more after its last report, whose state stays whole.
      recorder: what keeps them.
      checkpointer: when to save.
      context: where the run is, and whether it shall end early.

    Returns:
      What the recorder makes of it.

    Raises:
      EnvironmentFault: an environment failed; all before that is saved.
      StorageError: too many checkpoints failed, or the last one did.
    """
    save_now = partial(checkpointer.save_now, context.store)
    for report in _begun(reports):
        make = partial(recorder.checkpoint, report)
        if report.due:
            try:
                recorder.record(report)
            except EnvironmentFault as fault:
                _save_before(fault, context, partial(save_now, partial(make, unrecorded=True)))
                raise
            except Interrupted:
                save_now(partial(make, unrecorded=True))
                return recorder.stop(report)
        if recorder.is_last(report):
            return recorder.finish(report, save_now)
        if isinstance(report.fault, Interrupted) or (context.stop.requested and report.fault is None):
            save_now(make)
            return recorder.stop(report)
        if report.fault is not None:
            _save_before(report.fault, context, partial(save_now, make))
        elif checkpointer.should_save(report.step) or recorder.must_save(report):
            checkpointer.save(context.store, make)
    return recorder.stop(None)


def _begun(reports: Iterable[ReportT]) -> Iterator[ReportT]:
    """The reports of a loop; none where a stop was heard before its first one, while it was made ready."""
    loop = iter(reports)
    try:
        first = next(loop, None)
    except Interrupted:
        return
    if first is not None:
        yield first
        yield from loop


def _save_before(fault: EnvironmentFault, context: RunContext, save: Callable[[], None]) -> None:
    """Saves before an error that ends the run, and the whole of its traceback; what goes wrong is said beside it."""
    try:
        if fault.trace:
            context.directory.write_text(context.directory.fault, f"{fault.trace}\n{fault}\n")
            fault.add_note(f"the whole traceback is in {context.directory.fault}")
    except StorageError as error:
        fault.add_note(f"its traceback could not be kept: {error}")
    try:
        save()
    except StorageError as error:
        fault.add_note(f"nor could the run be saved: {error}")
