"""A batch as the agent learns from it: pictures as they are stored, and as they are shifted, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from ddpg_jax.agents.factory import make_pixel_settings
from ddpg_jax.envs.mixed import split_rows
from ddpg_jax.runs.plots import picture_table
from ddpg_jax.types import Array, Batch, EnvSpec, HostArray

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

_SHOWN = 6
"""Transitions of the picture."""


def draw_augmentations(path: Path, config: Config, spec: EnvSpec, batch: Batch, key: Array) -> None:
    """Draws the newest pictures of some transitions: of observation and successor, stored and shifted.

    Args:
      path: a PNG file to write.
      config: the run; it has an encoder.
      spec: its environment.
      batch: leaves `[U, B, ...]`.
      key: of the shifts, which are drawn as those of an update are.

    Raises:
      StorageError: the file cannot be written.
    """
    title = f"{config.env.id}, {config.algorithm.name}: a batch as it is stored and as it is seen"
    picture_table(path, augmented_rows(config, spec, batch, key), title)


def augmented_rows(config: Config, spec: EnvSpec, batch: Batch, key: Array) -> list[tuple[str, HostArray]]:
    """What `draw_augmentations` draws: names and pictures, `uint8 [N, H, W, 3 or 1]`."""
    augment = make_pixel_settings(config, spec).augment
    stored = jax.tree.map(lambda x: x[0, :_SHOWN], batch.data)
    shifted = jax.vmap(augment)(stored, jax.random.split(key, len(stored.reward)))
    rows: list[tuple[str, HostArray]] = []
    for name, before, after in (("observation", stored.obs, shifted.obs), ("next", stored.next_obs, shifted.next_obs)):
        rows += [(name, pictures) for pictures in _newest(before, spec)]
        rows += [("shifted", pictures) for pictures in _newest(after, spec)]
    return rows


def _newest(obs: Array, spec: EnvSpec) -> HostArray:
    """The last three channels, or the last one, of the newest pictures, `[copies, N, H, W, 3 or 1]`."""
    pictures, _ = split_rows(np.asarray(obs), spec.proprioception)
    extra = pictures.ndim - len(spec.obs_shape)  # N, and copies after it where there are several
    pictures = np.moveaxis(pictures, 1, 0) if extra == 2 else pictures[None]
    pictures = pictures[:, :, -1] if len(spec.obs_shape) == 4 else pictures
    return pictures[..., -3:] if pictures.shape[-1] % 3 == 0 else pictures[..., -1:]
