"""Parameters on disk, as safetensors: arrays and text, no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ddpg_jax.errors import StorageError
from ddpg_jax.trees import from_host, to_host
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
    arrays = to_host(tree)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, part, {"format": FORMAT, "spec": json.dumps(spec._asdict())})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def read_spec(path: Path) -> EnvSpec:
    """The description of the environment the weights were trained in.

    Raises:
      StorageError: there is no such file, or it is not one of ours.
    """
    metadata = _open(path)[1]
    try:
        spec = cast("dict[str, Any]", json.loads(metadata["spec"]))
        return EnvSpec(
            tuple(spec["obs_shape"]), spec["obs_dtype"], tuple(spec["action_low"]), tuple(spec["action_high"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: its description of the environment cannot be read: {error}") from error


def load_weights(path: Path, like: Tree) -> Tree:
    """Reads a tree.

    Args:
      path: a file of `save_weights`.
      like: a tree of the expected structure, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`).

    Returns:
      The tree, of NumPy arrays.

    Raises:
      StorageError: the file is missing or broken, or its arrays are not those expected; it names the first ten.
    """
    return from_host(like, _open(path)[0], "", str(path))


def _open(path: Path) -> tuple[dict[str, HostArray], dict[str, str]]:
    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise StorageError(f"{path} is not a file of weights of this format ({FORMAT})")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
