"""Weights & Biases, with `pip install "ddpg-jax[wandb]"`.

Key, project, entity and mode are taken from where W&B looks for them (`WANDB_API_KEY`, `WANDB_PROJECT`, `WANDB_MODE`,
`wandb login`). W&B takes rows without saying when they have arrived, so what counts is what its server holds: at a
resume all rows are offered again, and those up to the server's last step are passed over. Offline there is no server to
ask, and segments of one run are not put together reliably: each process writes a new file with all rows, and removes
those before once its own is whole.
"""

from __future__ import annotations

import shutil
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpg_jax.runs.sinks.sink import points

if TYPE_CHECKING:
    from ddpg_jax.runs.sinks.sink import Identity
    from ddpg_jax.types import Row

_PROJECT = "ddpg_jax"
_SECONDS = 10.0
"""That its file may take to appear."""


_OPEN: set[int] = set()
"""Sinks of this process whose run goes on: the lanes of a sweep have one each."""


class WandbSink:
    """A run of W&B for a run directory; its steps are environment steps, `env_step`."""

    def __init__(self) -> None:
        self._run: Any = None
        self._one_seed = False
        self._offline, self._first, self._bytes = False, 0, 0

    def destination(self, run: Identity) -> str:
        """Offline, or the server with the project."""
        settings = _settings()
        if settings.mode == "offline":
            return "offline"
        return f"{settings.base_url} {settings.entity or ''}/{settings.project or _PROJECT}"

    def open(self, run: Identity, *, resumes: bool) -> bool:
        """Begins the run, or goes on after the last step that the server holds."""
        wandb: Any = import_module("wandb")
        self._offline = _settings().mode == "offline"
        self._run = wandb.init(
            project=_settings().project or _PROJECT,
            id=run.id,
            name=run.name,
            group=run.group,
            dir=str(run.files),
            config=run.config,
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        _OPEN.add(id(self))
        self._one_seed = run.one_seed
        self._run.define_metric("env_step")
        self._run.define_metric("*", step_metric="env_step")
        self._first = int(self._run.step) if self._run.resumed else 0
        return False

    def send(self, rows: list[Row], when: float, *, again: bool) -> None:
        """Logs each step as one row; what the server holds already is passed over."""
        for point in points(rows, one_seed=self._one_seed):
            if point.step >= self._first:
                self._run.log({**point.values, "env_step": point.step}, step=point.step, commit=True)
                self._bytes += sum(map(len, point.values))

    def close(self) -> None:
        """Waits until W&B has sent, or written, all of it.

        Raises:
          OSError: what was written offline is too small to hold it.
        """
        _OPEN.discard(id(self))
        self._run.finish()
        if not _OPEN:
            import_module("wandb").teardown()  # `finish` returns before its service has written what it holds
        if not self._offline:
            return
        segment, last = Path(self._run.dir).parent, time.monotonic() + _SECONDS
        while (found := sum(path.stat().st_size for path in segment.glob("run-*.wandb"))) < self._bytes:
            if time.monotonic() > last:
                raise OSError(f"{segment} holds {found} bytes, but more than {self._bytes} were sent")
            time.sleep(0.1)
        _remove_others(segment, self._run.id)


def _settings() -> Any:
    return import_module("wandb").setup().settings


def _remove_others(segment: Path, identifier: str) -> None:
    """Removes what earlier processes have written offline of the same run."""
    for path in segment.parent.glob(f"offline-run-*-{identifier}"):
        if path != segment and not path.is_symlink():
            shutil.rmtree(path)
