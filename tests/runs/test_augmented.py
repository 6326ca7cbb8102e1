"""The picture of a batch before and after it is shifted."""

import jax
import numpy as np
import pytest
from matplotlib.image import imread
from numpy_pixels import shifted

from ddpg_jax.config.load import load_config
from ddpg_jax.envs.mixed import put_below
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.augmented import augmented_rows, draw_augmentations
from ddpg_jax.types import Batch, EnvSpec, Transition


def test_rows_are_what_is_stored_and_what_is_seen(tmp_path):
    """The newest picture of each stack, by the offsets of its key, without the numbers below it; each copy is a row."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 1, 7, 2, 9, 9, 3), np.uint8)
    flat = pictures.reshape(-1, 9, 9, 3)
    packed = np.array([put_below(each, np.ones(2, np.float32)) for each in flat]).reshape(2, 1, 7, 2, 10, 9, 3)
    ones = np.ones((1, 7), np.float32)
    batch = Batch(Transition(packed[0], ones[..., None], ones, ones, packed[1]), ones, ones)
    spec = EnvSpec((2, 10, 9, 3), "uint8", (-1.0,), (1.0,), stack=2, proprioception=2)
    config = load_config(algorithm={"encoder": {"kind": "small", "kernel": 2, "shift": 2, "target_copies": 2}})
    rows = augmented_rows(config, spec, batch, jax.random.key(3))
    assert [name for name, _ in rows] == ["observation", "shifted", "next", "shifted", "shifted"]
    pairs = [jax.random.split(k) for k in jax.random.split(jax.random.key(3), 6)]
    for i, (own, following) in enumerate(pairs):
        (offset,), others = (np.asarray(jax.random.randint(k, (n, 2), 0, 5)) for k, n in ((own, 1), (following, 2)))
        obs, next_obs = pictures[:, 0, i, -1]
        seen = [obs, shifted(obs, offset, 2), next_obs, *(shifted(next_obs, other, 2) for other in others)]
        for (_, row), expected in zip(rows, seen, strict=True):
            np.testing.assert_array_equal(row[i], expected)
    draw_augmentations(tmp_path / "batch.png", config, spec, batch, jax.random.key(4))
    assert imread(tmp_path / "batch.png").std() > 0.1


def test_it_is_refused_where_nothing_is_shifted():
    for algorithm in ({}, {"encoder": {"shift": 0}}):
        with pytest.raises(ConfigError, match=r"logging.augmentations.* has no effect without algorithm.encoder.shift"):
            load_config(logging={"augmentations": True}, algorithm=algorithm)
