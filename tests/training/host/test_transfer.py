"""Batches and observations on their way to the device: what comes out is what went in."""

import jax
import numpy as np
import pytest
from tiny_run import assert_bit_equal, tiny_config

from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.training.host.transfer import folded_batches, pack_batch, pack_obs, raw_rows, unpack_batch, unpack_obs
from ddpg_jax.types import Batch, Step, Transition


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_packing_and_unpacking_is_exact(kind):
    rng, shape = np.random.default_rng(0), (2, 3, 5)

    def observations():
        if kind == "images":
            return rng.integers(0, 256, (*shape, 4, 4, 3), np.uint8)
        return rng.normal(size=(*shape, 6)).astype(np.float32)

    def numbers(*more):
        return rng.normal(size=(*shape, *more)).astype(np.float32)

    data = Transition(observations(), numbers(2), numbers(), numbers(), observations())
    batch = Batch(data, numbers(), rng.integers(0, 9, shape))
    packed = pack_batch(batch)
    assert len(jax.tree.leaves(packed)) == (3 if kind == "images" else 1)
    unpacked = jax.jit(unpack_batch, static_argnums=1)(packed, 2)
    assert unpacked.index == ()
    assert_bit_equal(unpacked._replace(index=()), batch._replace(index=()))


def test_packing_one_observation_and_one_action():
    """The narrowest columns: nothing is split in the wrong place."""
    column = [np.full((1, 1, 2, 1), x, np.float32) for x in (1, 2, 3)]
    batch = Batch(Transition(column[0], column[1], column[2][..., 0] * 0 + 4, column[2][..., 0] * 0 + 5, column[2]),
                  np.full((1, 1, 2), 6, np.float32), ())  # fmt: skip
    assert_bit_equal(unpack_batch(pack_batch(batch), 1), batch)


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_both_ways_for_batches_give_the_same_batch(kind):
    """Words taken apart on the device equal what the ring folds on the host, at ends of either kind too."""
    config = tiny_config(env={"num_envs": 2}, replay={"kind": kind})
    spec = make_training_envs(config).spec
    ring, rng = make_ring(config, spec), np.random.default_rng(0)
    for _ in range(40):
        lead = (len(config.seed_list), 2)
        obs, next_obs = rng.normal(size=(2, *lead, *spec.obs_shape)).astype(np.float32)
        reward, ends = rng.normal(size=lead).astype(np.float32), rng.random((2, *lead)) < 0.3
        ring.add(
            obs, rng.uniform(-1, 1, (*lead, spec.action_size)).astype(np.float32), Step(obs, next_obs, reward, *ends)
        )
    ring.write_back(ring.draw(1, 200, call=4), rng.normal(size=(2, 1, 200)))
    index = ring.draw(3, 32, call=5)
    words, folded = raw_rows(ring), folded_batches(ring)
    one, other = (jax.jit(way.unpack)(way.pack(index)) for way in (words, folded))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert set(np.unique(one.data.discount)) == {np.float32(0), np.float32(0.99)}
    np.testing.assert_array_equal(one.weight, ring.weights(index))
    assert (len(np.unique(one.weight)) > 10) == (kind == "prioritized")


def test_what_is_seen_travels_exactly_for_images_too():
    rng = np.random.default_rng(0)
    first = rng.random((2, 3)) < 0.5
    for obs in (rng.normal(size=(2, 3, 4)).astype(np.float32), rng.integers(0, 256, (2, 3, 4, 4, 1), np.uint8)):
        seen = jax.jit(unpack_obs)(pack_obs(obs, first))
        np.testing.assert_array_equal(seen[0], obs)
        np.testing.assert_array_equal(seen[1], first)
        assert (seen[0].dtype, seen[1].dtype) == (obs.dtype, bool)
