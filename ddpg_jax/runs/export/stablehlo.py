"""A policy as StableHLO for CPUs, GPUs and TPUs, by `jax.export`: `jax.export.deserialize(content).call(obs)`.

It is a form to deliver, not to keep: jax promises to read what is not older than half a year.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.actions import to_units
from ddpg_jax.types import Array, EnvSpec, HostArray
from ddpg_jax.xla.modes import numeric_modes

PLATFORMS = ("cpu", "cuda", "tpu")

_ANY_BATCH = "batch - 1"
"""Variables of `jax.export` are at least 1, and a batch may be empty."""


def to_stablehlo(
    policy: Callable[[Array], Array], spec: EnvSpec, example: HostArray, metadata: Mapping[str, Any]
) -> bytes:
    """The policy as bytes of `jax.export`.

    Args:
      policy: `obs [N, *O] -> action [N, A]` in [-1, 1]; it is traced.
      spec: of the environment.
      example: actions in the environment's units, `[N, *A]`, for their shape and dtype.
      metadata: kept as JSON in `fun_name`, the one text that such a file has.
    """

    def in_units(obs: Array) -> Array:
        action = policy(obs)
        with jax.enable_x64(True):  # float32 would round bounds, and leave them
            low, high = (jnp.asarray(bound, jnp.float64) for bound in (spec.action_low, spec.action_high))
            scaled = jax.vmap(to_units, (0, None, None))(action.astype(jnp.float64), low, high).astype(example.dtype)
        return scaled.reshape(-1, *example.shape[1:]) if example.ndim != 2 else scaled

    with numeric_modes():
        (batch,) = jax.export.symbolic_shape(_ANY_BATCH)
        obs = jax.ShapeDtypeStruct((batch, *spec.obs_shape), np.dtype(spec.obs_dtype))
        exported = jax.export.export(jax.jit(in_units), platforms=PLATFORMS)(obs)
        said = {**metadata, "calling_convention_version": exported.calling_convention_version}
        return bytes(dataclasses.replace(exported, fun_name=json.dumps(said)).serialize())


def run_stablehlo(content: bytes, obs: HostArray) -> HostArray:
    """The actions of such bytes, `[N, *O] -> [N, *A]`."""
    return np.asarray(jax.export.deserialize(bytearray(content)).call(obs))
