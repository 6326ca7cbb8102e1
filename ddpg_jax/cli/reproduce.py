"""Runs an update again that was not finite, operation by operation, and says where it stops being finite."""

from __future__ import annotations

import traceback
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.runs.failed_update import Bundle, read_bundle
from ddpg_jax.xla.modes import in_numeric_modes

_PACKAGE = Path(__file__).parents[1]


@in_numeric_modes
def reproduce(path: str | Path, console: Console) -> int:
    """Prints what is not finite in the update of a bundle, first and of all its results, and its largest numbers.

    Args:
      path: a file that a run left which diverged.
      console: where to print.

    Returns:
      The exit code: that of `NotFiniteError` where the update is not finite here either, else 0.

    Raises:
      StorageError: there is no such file, or it is broken.
    """
    bundle = read_bundle(Path(path))
    _, metrics, _ = jax.jit(bundle.agent.update)(bundle.state, bundle.batch, bundle.key)
    rejected = np.flatnonzero(np.asarray(metrics["rejected"]))

    def notify(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    notify(
        f"{bundle.config.algorithm_name} on {bundle.config.env.id}, seed {bundle.seed}, "
        f"after update {bundle.state.step}"
    )
    updates, size = bundle.batch.weight.shape
    notify(f"a call of {updates} updates with {size} transitions each: {len(rejected)} are not finite")
    if len(rejected):
        notify(f"first: number {rejected[0] + 1}, {_first(bundle)}")
    notify("largest numbers:")
    for name, values in {**_numbers(bundle)}.items():
        notify(f"  {name:<12} {_largest(values)}")
    return NotFiniteError.exit_code if len(rejected) else 0


def _first(bundle: Bundle) -> str:
    """Which operation of this package's code gives the first NaN, or else the first infinity."""
    for check in (jax.debug_nans, jax.debug_infs):
        with jax.disable_jit(), check(True):
            try:
                bundle.agent.update(bundle.state, bundle.batch, bundle.key)
            except FloatingPointError as error:
                ours = [
                    f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(_PACKAGE)
                ]
                where = f"{Path(ours[-1].filename).relative_to(_PACKAGE)}:{ours[-1].lineno}, {ours[-1].line}"
                return f"{str(error).splitlines()[0]} in {where}"
    return "which no single operation shows"


def _numbers(bundle: Bundle) -> dict[str, np.ndarray]:
    data = bundle.batch.data
    batch = {name: np.asarray(getattr(data, name)) for name in ("obs", "action", "reward", "discount", "next_obs")}
    params = {
        name: np.concatenate([np.ravel(x) for x in jax.tree.leaves(getattr(bundle.state.params, name))])
        for name in ("actor", "critic")
    }
    return batch | {"weight": np.asarray(bundle.batch.weight)} | params


def _largest(values: np.ndarray) -> str:
    """The number that is largest in size, NaN before all, and where it stands."""
    sizes = np.where(np.isnan(values), np.inf, np.abs(values.astype(np.float64)))
    place = np.unravel_index(int(sizes.argmax()), values.shape)
    return f"{values[place]:.6g} at {[int(i) for i in place]}"
