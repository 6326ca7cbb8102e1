"""Observations on which every form of a policy is compared with `load_policy`, ordinary and extreme ones."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from ddpg_jax.envs.mixed import put_below, split_rows
from ddpg_jax.types import EnvSpec, HostArray

COUNT = 1000
"""Observations in `golden.npz`."""

ORDINARY = 600
"""Of them, the first ones, which are not extreme."""

_SCALES = (1e-6, 10.0, 1e3, 1e6)
"""Of the extreme ones, in deviations; beside them are zeros, and single components of 1e6 and −1e6."""


class Golden(NamedTuple):
    """Observations `[N, *O]` and the actions that `load_policy` gives, `[N, *A]`."""

    obs: HostArray
    action: HostArray


def golden_observations(spec: EnvSpec, arrays: Mapping[str, HostArray], count: int = COUNT) -> HostArray:
    """Observations around those that were seen, where moments of them are kept, and far away; always the same.

    Args:
      spec: of the environment.
      arrays: of the policy; "stats/obs/mean" and "stats/obs/variance" are read if they are there.
      count: N, how many.

    Returns:
      `[N, *O]`, in the dtype of observations.
    """
    rng, size, dtype = np.random.default_rng(0), prod(spec.obs_shape), np.dtype(spec.obs_dtype)
    if dtype.kind == "u":
        images = rng.integers(0, np.iinfo(dtype).max, (count, *spec.obs_shape), dtype, endpoint=True)
        return _with_numbers(images, spec, rng)
    mean = np.ravel(arrays.get("stats/obs/mean", np.zeros(size)))
    deviation = np.sqrt(np.ravel(arrays.get("stats/obs/variance", np.ones(size))))
    ordinary = mean + deviation * rng.normal(size=(ORDINARY, size))
    corners = np.concatenate([np.zeros((1, size)), *(1e6 * sign * np.eye(size)[:40] for sign in (1, -1))])
    each = -(-(count - ORDINARY - len(corners)) // len(_SCALES))
    scaled = [mean + scale * deviation * rng.normal(size=(each, size)) for scale in _SCALES]
    return np.concatenate([ordinary, corners, *scaled])[:count].reshape(-1, *spec.obs_shape).astype(dtype)


def _with_numbers(images: HostArray, spec: EnvSpec, rng: np.random.Generator) -> HostArray:
    """Images `[N, k, H + r, W, C]` with numbers in their rows, where the environment observes such."""
    if not spec.proprioception:
        return images
    pictures, _ = split_rows(images, spec.proprioception)
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    numbers = rng.normal(size=(len(flat), spec.proprioception)).astype(np.float32)
    return np.array([put_below(*pair) for pair in zip(flat, numbers, strict=True)]).reshape(images.shape)


def differences(spec: EnvSpec, golden: Golden, action: HostArray) -> HostArray:
    """By how much actions `[N, *A]` differ from the golden ones, in units of half the action range, `[N, A]`."""
    half = (np.array(spec.action_high) - spec.action_low) / 2
    off = np.abs(np.asarray(action, np.float64) - golden.action.astype(np.float64))
    return off.reshape(len(off), -1) / half
