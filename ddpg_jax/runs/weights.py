"""Parameters on disk, as safetensors: arrays and text, no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import read_sealed, seal
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.store import BEST, CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.documents import WEIGHTS, StoredSpec, validate
from ddpg_jax.runs.pytrees import from_host, name_leaves, to_host
from ddpg_jax.types import EnvSpec, HostArray, ObsPart, TrainState, Tree

FORMAT = WEIGHTS[0]

_REST = "stats/obs/rest/"


def stored_part(state: TrainState) -> dict[str, Tree]:
    """What of a learner is stored: all that its policy reads."""
    return {"params": state.params, "stats": state.stats}


def save_weights(path: Path, tree: Tree, spec: EnvSpec) -> None:
    """Writes the leaves of a tree by their paths, with the environment's description.

    Raises:
      StorageError: the file cannot be written.
    """
    _write(path, to_host(tree), spec)


def _write(path: Path, arrays: Mapping[str, HostArray], spec: EnvSpec) -> None:
    metadata = {"format": FORMAT, "spec": json.dumps(spec.stored())}
    try:
        filesystem.make_folder(path.parent)
        filesystem.replace_file(path, seal(arrays, metadata))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


class Weights(NamedTuple):
    """What was stored of a learner.

    Attributes:
      path: where it was found.
      arrays: by name, leaves `[S, ...]`.
      spec: the environment it was trained in.
      sha256: of the file, which was compared; None: it says none, or they are of a checkpoint.
    """

    path: Path
    arrays: dict[str, HostArray]
    spec: EnvSpec
    sha256: str | None = None

    def write(self, path: Path) -> None:
        """Writes them to another file.

        Raises:
          StorageError: it cannot be written.
        """
        _write(path, self.arrays, self.spec)


def read_weights(directory: RunDirectory, which: Literal["final", "best"] = "final") -> Weights:
    """The final weights of a run, or those of its last checkpoint where it has not come to its end.

    Of a checkpoint the networks alone must be whole: rows of the replay may be lost.

    Args:
      directory: the run.
      which: "best": those of the evaluation that was best so far.

    Raises:
      StorageError: there are none, or a file is broken.
    """
    if which == "best":
        if not directory.best_weights.is_file():
            raise StorageError(f"{directory.path} holds no {directory.best_weights.name}: no evaluation was kept yet")
        return open_weights(directory.best_weights)
    if directory.weights.is_file():
        return open_weights(directory.weights)
    found = CheckpointStore(directory.checkpoints).newest_arrays()
    if found is None:
        raise StorageError(f"{directory.path} holds no weights: neither {directory.weights} nor a whole checkpoint")
    return checkpoint_weights(*found)


def checkpoint_weights(path: Path, checkpoint: Checkpoint) -> Weights:
    """The weights in a checkpoint.

    Args:
      path: its folder, for messages.
      checkpoint: of a run.

    Raises:
      StorageError: it holds none, or does not say of which environment.
    """
    parts = [name.partition("learner/") for name in checkpoint.arrays]
    arrays = {
        name: checkpoint.arrays[before + middle + name]
        for before, middle, name in parts
        if before in ("", "lane/") and middle and name.partition("/")[0] in ("params", "stats")
    }
    if not arrays:
        raise StorageError(f"{path} holds no weights")
    return Weights(path, arrays, as_spec(checkpoint.facts.get("spec")))


def save_best(directory: RunDirectory, step: int, tree: Tree, spec: EnvSpec) -> None:
    """Keeps the weights of the evaluation that is the best so far; called before the checkpoint that tells of it.

    They are written twice: to `best.safetensors`, and to a file of their step, which stays for as long as a checkpoint
    says `best_step` of it. So whichever checkpoint a run goes on from, `restore_best` finds what was best by then.

    Args:
      directory: of the run.
      step: environment steps of each seed at the evaluation.
      tree: from `stored_part`, as it was then.
      spec: the environment.

    Raises:
      StorageError: they cannot be written.
    """
    directory.check_owner()
    arrays = to_host(tree)
    for path in (_best_at(directory, step), directory.best_weights):
        _write(path, arrays, spec)


def restore_best(directory: RunDirectory, step: int | None, source: RunDirectory | None = None) -> bool:
    """Makes `best.safetensors` what it was when a checkpoint was written, from which the run goes on.

    Args:
      directory: of the run.
      step: what the checkpoint says in `best_step`; None: there was none yet.
      source: the run that the checkpoint is of, where that is another.

    Returns:
      Whether that could be done; where the weights of that step are lost, there is no such file afterwards.

    Raises:
      StorageError: the file cannot be written.
    """
    directory.check_owner()
    try:
        kept = None if step is None else open_weights(_best_at(source or directory, step))
    except StorageError:
        kept = None
    try:
        if kept is None:
            filesystem.remove(directory.best_weights)
    except OSError as error:
        raise StorageError(f"{directory.best_weights} cannot be removed: {error}") from error
    if kept is not None and step is not None:
        for path in (_best_at(directory, step), directory.best_weights):
            kept.write(path)
    return (kept is None) == (step is None)


def restart_from_networks(directory: RunDirectory) -> str:
    """Prepares a run whose checkpoints are lost in part to begin again with the networks that are left, level weights.

    Everything else is set aside under other names: nothing is cut or removed but the results.

    Returns:
      The names.

    Raises:
      StorageError: not even the networks are whole, or something cannot be written.
    """
    directory.check_owner()
    read_weights(directory).write(directory.start)
    directory.drop_results()
    return directory.set_aside(directory.metrics, directory.timing, directory.checkpoints)


def _best_at(directory: RunDirectory, step: int) -> Path:
    return directory.checkpoints / BEST / f"step-{step}.safetensors"


def open_weights(path: Path) -> Weights:
    """The weights in a file of `save_weights`.

    Raises:
      StorageError: there is no such file, or it is not one of ours.
    """
    file = read_sealed(path, *WEIGHTS)
    if not file.arrays:
        raise StorageError(f"{path} holds no arrays")
    return Weights(path, file.arrays, _parsed_spec(path, file.metadata["spec"]), file.sha256)


def fit(weights: Weights, like: Tree) -> Tree:
    """The weights as a tree.

    Args:
      weights: as they were read.
      like: a tree of the expected structure, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`).

    Returns:
      The tree, of NumPy arrays.

    Raises:
      StorageError: the arrays are not those expected; it names the first ten.
    """
    return from_host(like, weights.arrays, "", str(weights.path))


def init_from_weights(weights: Weights) -> Callable[[TrainState], TrainState]:
    """What puts the weights of a run in the place of fresh ones; the targets become copies of them.

    Lane i takes those of seed i of that run, counted round.

    Raises:
      StorageError: from what is returned: they do not fit.
    """

    def begin(state: TrainState) -> TrainState:
        lanes, first = len(state.step), next(iter(weights.arrays.values()))
        seeds = len(first) if first.ndim else 0
        if not seeds:
            raise StorageError(f"{weights.path} holds the weights of no seed")
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape[1:]), x.dtype), stored_part(state))
        fitting = weights._replace(arrays=_with_rest(weights.arrays, like))
        chosen = jax.tree.map(lambda x: x[np.arange(lanes) % seeds], fit(fitting, like))
        params, stats = chosen["params"], chosen["stats"]
        return state._replace(params=params, target_params=jax.tree.map(np.copy, params), stats=stats)

    return begin


def _with_rest(arrays: Mapping[str, HostArray], like: Tree) -> dict[str, HostArray]:
    """The arrays with what float32 rounds away of observation moments where it is kept, and without where it is not.

    Runs that earlier versions began keep none; what has not been noted is 0.
    """
    wanted = {name: leaf for name, leaf in name_leaves(like).items() if name.startswith(_REST)}
    kept = {name: x for name, x in arrays.items() if not name.startswith(_REST) or name in wanted}
    whole = any(name.startswith(_REST) for name in kept) or "stats/obs/size" not in kept
    return kept if whole else kept | {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}


def as_spec(values: Any) -> EnvSpec:
    """The description of an environment from what JSON knows.

    Raises:
      StorageError: it is none.
    """
    spec = validate(StoredSpec, values, "the description of the environment")
    return EnvSpec(
        tuple(spec.obs_shape),
        spec.obs_dtype,
        tuple(spec.action_low),
        tuple(spec.action_high),
        None if spec.action_shape is None else tuple(spec.action_shape),
        tuple(
            ObsPart(tuple(path), start, stop, tuple(shape), dtype) for path, start, stop, shape, dtype in spec.layout
        ),
        spec.stack,
        spec.proprioception,
    )


def _parsed_spec(path: Path, text: str) -> EnvSpec:
    try:
        return as_spec(json.loads(text))
    except (ValueError, RecursionError, StorageError) as error:
        raise StorageError(f"{path}: its description of the environment cannot be read: {error}") from error
