"""Parameters on disk, as safetensors: arrays and text, no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import leaf_of, serialized
from ddpg_jax.runs.checkpoints.store import CheckpointInfo, CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.pytrees import from_host, to_host
from ddpg_jax.types import EnvSpec, HostArray, TrainState, Tree

FORMAT = "ddpg_jax weights 1"


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
    part = path.with_name(path.name + ".part")
    leaves = [leaf_of(name, array) for name, array in arrays.items()]
    metadata = {"format": FORMAT, "spec": json.dumps(spec._asdict())}
    try:
        filesystem.make_folder(path.parent)
        filesystem.write_file(part, serialized(leaves, arrays.values(), metadata))
        filesystem.rename(part, path)
        filesystem.sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


class Weights(NamedTuple):
    """What was stored of a learner.

    Attributes:
      path: where it was found.
      arrays: by name, leaves `[S, ...]`.
      spec: the environment it was trained in.
    """

    path: Path
    arrays: dict[str, HostArray]
    spec: EnvSpec

    def write(self, path: Path) -> None:
        """Writes them to another file.

        Raises:
          StorageError: it cannot be written.
        """
        _write(path, self.arrays, self.spec)


def read_weights(directory: RunDirectory) -> Weights:
    """The final weights of a run, or those of its last checkpoint where it has not come to its end.

    Raises:
      StorageError: there are none, or a file is broken.
    """
    if directory.weights.is_file():
        return open_weights(directory.weights)
    store = CheckpointStore(directory.checkpoints)
    whole = [found for _, found in store.examine() if isinstance(found, CheckpointInfo)]
    if not whole:
        raise StorageError(f"{directory.path} holds no weights: neither {directory.weights} nor a whole checkpoint")
    last = max(whole, key=lambda found: found.sequence)
    checkpoint = store.load(last)
    parts = [name.partition("learner/") for name in checkpoint.arrays]
    arrays = {
        name: checkpoint.arrays[before + middle + name]
        for before, middle, name in parts
        if before in ("", "lane/") and middle and name.partition("/")[0] in ("params", "stats")
    }
    return Weights(last.path, arrays, as_spec(checkpoint.facts.get("spec")))


def open_weights(path: Path) -> Weights:
    """The weights in a file of `save_weights`.

    Raises:
      StorageError: there is no such file, or it is not one of ours.
    """
    arrays, metadata = _open(path)
    return Weights(path, arrays, _parsed_spec(path, metadata.get("spec", "")))


def fitted(weights: Weights, like: Tree) -> Tree:
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
        lanes, seeds = len(state.step), len(next(iter(weights.arrays.values())))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape[1:]), x.dtype), stored_part(state))
        chosen = jax.tree.map(lambda x: x[np.arange(lanes) % seeds], fitted(weights, like))
        params, stats = chosen["params"], chosen["stats"]
        return state._replace(params=params, target_params=jax.tree.map(np.copy, params), stats=stats)

    return begin


def as_spec(values: Any) -> EnvSpec:
    """The description of an environment from what JSON knows.

    Raises:
      StorageError: it is none.
    """
    try:
        return EnvSpec(
            tuple(values["obs_shape"]), values["obs_dtype"], tuple(values["action_low"]), tuple(values["action_high"])
        )
    except (KeyError, TypeError) as error:
        raise StorageError(f"the description of the environment cannot be read: {error!r}") from error


def _parsed_spec(path: Path, text: str) -> EnvSpec:
    try:
        return as_spec(json.loads(text))
    except (ValueError, StorageError) as error:
        raise StorageError(f"{path}: its description of the environment cannot be read: {error}") from error


def _open(path: Path) -> tuple[dict[str, HostArray], dict[str, str]]:
    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise StorageError(f"{path} is not a file of weights of this format ({FORMAT})")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
