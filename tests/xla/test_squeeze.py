"""A lane that is alone is compiled without its axis, and is what it would be beside others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.factory import make_replay, make_ring
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.carry import Lane
from ddpg_jax.training.host.compile import jit_update
from ddpg_jax.training.host.transfer import batch_transfer
from ddpg_jax.types import EnvSpec, Step
from ddpg_jax.xla.squeeze import squeezed_vmap


def test_what_is_of_one_lane_does_not_see_its_axis():
    seen = []

    def one(tree, key):
        seen.append((tree["x"].shape, key.shape))
        return {"y": tree["x"] + 1}, key

    keys, x = run_keys([0]), jnp.arange(2.0).reshape(1, 2)
    found, same = squeezed_vmap(one)({"x": x}, keys)
    np.testing.assert_array_equal(found["y"], np.add(x, 1))
    assert (same == keys).all()
    assert seen == [((2,), ())]


def test_what_has_no_axis_and_what_a_lane_stores_stay_as_they_are():
    seen = []

    def one(lane, clock, key):
        seen.append((lane.obs.shape, lane.store.columns.shape, clock.shape, key.shape))
        return lane._replace(obs=lane.obs + clock), clock

    lane = Lane(*[jnp.zeros((1, 2))] * 5, replays.Rows(jnp.zeros((1, 4)), ()), *[jnp.zeros((1, 2))] * 2)
    found, clock = squeezed_vmap(one, (0, None, 0), (0, None), keeps=lambda part: isinstance(part, replays.Rows))(
        lane, jnp.ones(2), run_keys([0])
    )
    assert seen == [((2,), (1, 4), (2,), ())]
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, lane)
    np.testing.assert_array_equal(found.obs, np.ones((1, 2)))
    np.testing.assert_array_equal(clock, np.ones(2))


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_a_replay_with_the_axis_of_lanes_holds_and_gives_what_one_without_does(kind):
    spec = EnvSpec((3,), "float32", (-1.0,), (1.0,))
    plain = make_replay(tiny_config(replay={"kind": kind, "capacity": 10}), spec)
    kept, rng = replays.with_lane_axis(plain), np.random.default_rng(0)
    one, other, position = plain.init(), kept.init(), replays.start()
    for i in range(12):
        obs, none = rng.normal(size=(1, 3)).astype(np.float32), np.zeros(1, bool)
        row = (obs, obs[:, :1], Step(obs, obs + 1, obs[:, 0], none, none))
        one, other = plain.add(one, position, *row), kept.add(other, position, *row)
        position = replays.advance(position, 10)
        batch, same = (
            replay.sample(store, position, jax.random.key(i), jnp.int32(i), 2, 3)
            for replay, store in ((plain, one), (kept, other))
        )
        assert_bit_equal(batch, same)
        errors = rng.normal(size=(2, 3)).astype(np.float32)
        one, other = plain.write_back(one, batch.index, errors), kept.write_back(other, same.index, errors)
    assert_bit_equal(jax.tree.map(lambda x: x[None], one), other)


def assert_bit_equal(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), left, right)


@pytest.mark.parametrize("name", ["ddpg", pytest.param("td3", marks=pytest.mark.slow)])
def test_an_update_of_a_seed_that_is_alone_is_that_beside_another(name):
    spec = EnvSpec((3,), "float32", (-1.0,), (1.0,))
    config = tiny_config(seeds=[4, 9], algorithm={"name": name})
    agent, ring = make_agent(config, spec), make_ring(config, spec)
    for obs in np.random.default_rng(0).normal(size=(20, 2, 1, 3)).astype(np.float32):
        obs[1] = obs[0]
        none = np.zeros((2, 1), bool)
        ring.add(obs, obs[..., :1], Step(obs, obs, obs[..., 0], none, none))
    transfer = batch_transfer(ring, raw=False)  # as only wide networks are compiled alone
    index = np.random.default_rng(1).integers(0, 20, (1, 2, 4)).repeat(2, 0)
    packed = transfer.pack(index)
    update = partial(jit_update, agent, transfer.unpack, errors=True)
    alone, beside = update(squeeze_seed=True), update(squeeze_seed=False)
    states = jax.vmap(agent.init)(run_keys([4, 9]))
    for _ in range(3):
        first = jax.tree.map(lambda x: x[:1].copy(), states)
        one = alone(first, jax.tree.map(lambda x: x[:1], packed), run_keys([4]))
        states, *others = beside(states, packed, run_keys([4, 9]))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[:1], rtol=2e-5, atol=1e-6), one, (states, *others))
