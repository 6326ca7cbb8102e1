"""A finished run, as `train` returns it: what it reached, its metrics, its policies and its learning curve."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.errors import DdpgJaxError
from ddpg_jax.runs.plots import draw_curve
from ddpg_jax.runs.statistics import score_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpg_jax.runs.policy import HostPolicy
    from ddpg_jax.runs.record import Record
    from ddpg_jax.types import Agent


class Run(NamedTuple):
    """A finished run.

    Attributes:
      directory: where its files are.
      config: what it was.
      result: what `result.json` holds.
      make_agent: what made its agent, where that was handed over.
    """

    directory: Path
    config: Config
    result: dict[str, Any]
    make_agent: Callable[..., Agent] | None = None

    def __repr__(self) -> str:
        """What was trained, where it is and what it reached, in three lines."""
        config, result = self.config, self.result
        seeds = f"{len(config.seed_list)} seeds" if len(config.seed_list) > 1 else "1 seed"
        begin = f"Run of {run_title(config)}: {seeds}, {result['env_steps_per_seed']} steps each, in {self.directory}"
        scores = [f"  {name:5}  {score_line(result[name])} (step {result[name]['step']})" for name in ("final", "best")]
        return "\n".join([begin, *scores])

    def _repr_html_(self) -> str:
        """The same with the learning curve, for a notebook; the curve is left out where its files are gone."""
        text = f"<pre>{html.escape(repr(self))}</pre>"
        try:
            figure = self.plot()
        except (DdpgJaxError, ImportError):
            return text
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=80)
        encoded = base64.b64encode(picture.getvalue()).decode()
        return f'{text}<img alt="learning curve" src="data:image/png;base64,{encoded}">'

    @property
    def metrics(self) -> Record:
        """All that was recorded, as arrays; see `load_record`.

        Raises:
          StorageError: the record is not there, or cannot be read.
        """
        from ddpg_jax.runs.record import load_record

        return load_record(self.directory)

    def policy(self, seed: int = 0, *, which: Literal["final", "best"] = "final", **overrides: Any) -> HostPolicy:
        """The greedy policy of one seed; see `load_policy`.

        Args:
          seed: position in the run's list of seeds.
          which: "final", or that of the best evaluation.
          **overrides: as in `load_policy`; modules that this run names are imported, as they were to train it.
        """
        from ddpg_jax.runs.policy import load_policy

        own = {"make_agent": self.make_agent, "allow_imports": True, **overrides}
        return load_policy(self.directory, seed, which=which, **own)

    def plot(self) -> Figure:
        """The learning curve as a figure of matplotlib, which belongs to no window: `savefig` keeps it.

        Raises:
          StorageError: the record is not there, or cannot be read.
        """
        record = self.metrics
        kept = np.isin(record.seeds, self.result["seeds"])
        returns = np.nanmean(record.returns, axis=2)[:, kept]
        return draw_curve(record.steps, returns, run_title(self.config))


def run_title(config: Config) -> str:
    """What a run is, in a few words: task and algorithm."""
    return f"{config.env.id}, {config.algorithm_name}"
