"""Random shifts: whole pixels against a loop, bilinear against whole pixels, and who is shifted with whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_pixels import shifted

from ddpg_jax.agents.augmentations import SHIFTS, random_shift, shift_bilinear, shift_bytes
from ddpg_jax.types import Transition

PAD = 3


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 7, 5, 3), np.uint8)


@pytest.mark.parametrize("name", SHIFTS)
def test_every_offset_moves_whole_pixels_and_repeats_the_edge(pictures, name):
    """Bytes to the bit, and sampled as published to the bit once it is rounded."""
    move = jax.jit(jax.vmap(lambda offset: SHIFTS[name](jnp.asarray(pictures), offset, PAD)))
    offsets = np.stack(np.meshgrid(*[np.arange(2 * PAD + 1)] * 2), -1).reshape(-1, 2)
    found = move(offsets.astype(np.int32))
    assert found.dtype == np.uint8
    for offset, picture in zip(offsets, np.asarray(found), strict=True):
        np.testing.assert_array_equal(picture, shifted(pictures, offset, PAD))


def test_in_the_middle_nothing_moves_and_floats_stay_floats(pictures):
    middle = np.full(2, PAD, np.int32)
    np.testing.assert_array_equal(shift_bytes(jnp.asarray(pictures), middle, PAD), pictures)
    floats = shift_bilinear(jnp.asarray(pictures, jnp.float32), middle, PAD)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, pictures, atol=0.01)  # of 255


def test_a_stack_is_shifted_as_one_and_its_successor_apart():
    """Pictures that tell where each pixel was: those of a stack move by one offset, uniform on -pad to pad."""
    rows, columns = np.indices((9, 9))
    where = np.broadcast_to(np.stack([rows, columns], -1), (2, 9, 9, 2)).astype(np.uint8)
    data = Transition(jnp.asarray(where), jnp.zeros(1), 0.0, 1.0, jnp.asarray(where))
    augment = random_shift(PAD, target_copies=2)
    keys = jax.random.split(jax.random.key(0), 500)
    found = jax.jit(jax.vmap(augment, (None, 0)))(data, keys)
    assert found.obs.shape == (500, 2, 9, 9, 2)
    assert found.next_obs.shape == (500, 2, 2, 9, 9, 2)
    centre = np.asarray(found.obs[:, :, 4, 4], int) - 4
    np.testing.assert_array_equal(centre[:, 0], centre[:, 1])
    next_centre = np.asarray(found.next_obs[:, :, :, 4, 4], int) - 4
    np.testing.assert_array_equal(next_centre[:, :, 0], next_centre[:, :, 1])
    for moved in (centre[:, 0], next_centre[:, 0, 0], next_centre[:, 1, 0]):
        counts = np.stack([(moved == d).sum(0) for d in range(-PAD, PAD + 1)])
        assert counts.sum() == 1000  # nothing beyond the pad
        assert counts.min() > 40  # of 71 on average
    assert (centre[:, 0] != next_centre[:, 0, 0]).any()
    assert (next_centre[:, 0] != next_centre[:, 1]).any()
