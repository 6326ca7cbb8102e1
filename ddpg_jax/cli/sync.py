"""The command `sync`: sends the record of a run, or of a sweep, to a sink, as far as that has not been done."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ddpg_jax.config.wording import option
from ddpg_jax.errors import StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.factory import check_sinks, make_follower
from ddpg_jax.runs.sinks.process import describe


def sync(run_dir: Path, name: str, console: Console) -> int:
    """Sends what a sink lacks, and says how many rows that were.

    Args:
      run_dir: directory of a run or a sweep, whether it is complete or not.
      name: of the sink.
      console: where that is said.

    Returns:
      The exit code.

    Raises:
      ConfigError: there is no such sink, or its package is not installed.
      StorageError: there is no run, another process follows it, or the rows could not be sent.
    """
    check_sinks((name,))
    directory = RunDirectory.open(run_dir, of="sweep" if RunDirectory(run_dir).sweep.is_file() else "run")
    try:
        follower = make_follower(directory, name)
        try:
            while follower.advance(at_end=True):
                pass
        finally:
            follower.close()
    except StorageError:
        raise
    except Exception as error:  # whatever a back-end raises
        raise StorageError(
            f"{name} lacks rows of {directory.path}: {describe(error)}; mend that and give {option('to', name)} again"
        ) from error
    sent = f"{follower.sent} rows sent" if follower.sent else "nothing new"
    console.print(f"{name}: {sent}", highlight=False, markup=False, soft_wrap=True)
    return 0
