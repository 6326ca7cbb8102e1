"""Runs as they lie on disk, whose networks were drawn and never trained: of any algorithm, network and bounds."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import dump_toml, load_config
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.weights import save_weights, stored_part
from ddpg_jax.types import EnvSpec

UNEQUAL = EnvSpec((5,), "float32", (-0.1, -2.0, 0.25), (0.3, 1.0, 700.0))
"""Bounds on both sides of 0 and not, unlike each other; 0.1 and 0.3 are no numbers of float32."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer": {"normalization": "layer"},
    "batch": {"normalization": "batch"},
    "simba": {"architecture": "simba", "hidden": (16, 16), "critic_hidden": (16, 16)},
    "simba_v2": {"architecture": "simba_v2", "hidden": (16, 16), "critic_hidden": (16, 16)},
    "flash": {"architecture": "flash", "hidden": (16, 16), "critic_hidden": (16, 16)},
}


def store_run(
    path: Path,
    spec: EnvSpec = UNEQUAL,
    precision: str = "float32",
    env: Mapping[str, Any] = MappingProxyType({"value_range": (-10.0, 0.0)}),
    **algorithm: Any,
) -> Path:
    """A run directory with a configuration and final weights; moments, scales and biases are drawn too."""
    settings = {"hidden": (16, 12)} | algorithm
    config = load_config(seeds=2, precision=precision, algorithm=settings, env=dict(env))
    shapes = jax.eval_shape(jax.vmap(make_agent(config, spec).init), run_keys(config.seed_list))
    rng = np.random.default_rng(3)

    def drawn(place: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(place)
        if name.endswith(("variance", "['var']")):
            values = rng.uniform(0.3, 3.0, leaf.shape)
        elif name.endswith(("['scale']", "['factors']")):
            values = rng.uniform(0.5, 1.5, leaf.shape)  # with greater ones float32 itself errs by more than 1e-6
        else:
            limit = max(leaf.shape[1:2], default=1) ** -0.5  # as the initialiser "fan_in"
            values = rng.uniform(-limit, limit, leaf.shape)
        return values.astype(leaf.dtype)

    directory = RunDirectory.create(path, "stored")
    with directory.lock():
        directory.write_text(directory.config, dump_toml(config))
        save_weights(directory.weights, jax.tree_util.tree_map_with_path(drawn, stored_part(shapes)), spec)
    return path


def read_arrays(path):
    """The arrays of an NPZ file, which is closed."""
    with np.load(path) as file:
        return dict(file)
