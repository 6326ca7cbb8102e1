"""Windows of the device loop against those of the host, and what the compiled functions do with memory."""

import re
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from step_list import GAMMA, IMAGES, VECTORS, StepList, add_steps, experience

from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.ring import Position, uniform, with_lane_axis
from ddpg_jax.replay.device.sequences import gather, sequences
from ddpg_jax.replay.host.sequences import SequenceRing
from ddpg_jax.replay.windows import WindowShape

SEEDS, STEPS = 2, 24


class Sizes(NamedTuple):
    """Arguments of both rings."""

    num_envs: int = 2
    places: int = 9
    n_step: int = 2
    length: int = 3
    burn_in: int = 1

    @property
    def arguments(self):
        sizes = self._asdict()
        return sizes | {"capacity": sizes.pop("places") * self.num_envs, "gamma": GAMMA}

    @property
    def shape(self):
        return WindowShape(self.length, self.burn_in, self.n_step)


@cache
def filling(spec, sizes):
    """A jitted function that adds the first steps of an experience to the replays of all seeds."""
    replay = sequences(spec, **sizes.arguments)
    add = jax.vmap(replay.add, (0, None, 0, 0, 0))

    def body(t, carry, data):
        store, position = carry
        row = jax.tree.map(lambda x: x[t], (data.obs, data.action, data.step))
        return add(store, position, *row), replays.advance(position, sizes.places)

    def fill(data, stop):
        store = jax.vmap(lambda _: replay.init())(jnp.arange(SEEDS))
        return jax.lax.fori_loop(0, stop, lambda t, carry: body(t, carry, data), (store, replays.start()))

    return jax.jit(fill)


@cache
def gathering(spec, sizes):
    """A jitted function that gathers the windows at indices `[S, n]`."""
    of_seed = lambda store, position, index: gather(store, position, index, spec, sizes.shape, gamma=GAMMA)  # noqa: E731
    return jax.jit(jax.vmap(of_seed, (0, None, 0)))


@cache
def sampling(spec, sizes):
    """A jitted function that draws eight batches of 32 windows of each seed."""
    replay = sequences(spec, **sizes.arguments)
    return jax.jit(jax.vmap(lambda *arguments: replay.sample(*arguments, jnp.int32(0), 8, 32), (0, None, 0)))


def keys(seed):
    return jax.random.split(jax.random.key(seed), SEEDS)


SOME = [Sizes(), Sizes(num_envs=1, places=5, n_step=1, length=1, burn_in=0), Sizes(3, 7, 3, 2, 3)]


@settings(max_examples=40)
@given(st.sampled_from([(VECTORS, SOME[0]), (VECTORS, SOME[1]), (VECTORS, SOME[2]), (IMAGES, SOME[2])]), st.data())
def test_windows_are_those_of_the_host_and_of_the_list(kind, data):
    spec, sizes = kind
    whole, num_envs = sizes.shape.whole, sizes.num_envs
    stop, end_rate = data.draw(st.integers(whole, STEPS)), data.draw(st.sampled_from([0.0, 0.2, 0.6]))
    steps = experience(spec, STEPS, SEEDS, num_envs, end_rate, seed=data.draw(st.integers(0, 99)))
    ring = SequenceRing(spec, range(SEEDS), **sizes.arguments)
    add_steps(ring, steps, 0, stop)
    store, position = filling(spec, sizes)(steps, stop)
    starts = (min(stop, sizes.places) - whole + 1) * num_envs
    index = np.tile(np.arange(sizes.places * num_envs) % starts, (SEEDS, 1))
    batch = jax.tree.map(np.asarray, gathering(spec, sizes)(store, position, index))
    host = ring.gather(index)
    last = jax.tree.map(lambda x: x[:, :starts], batch.data)
    listed = StepList(steps, stop, sizes.places)
    for s in range(SEEDS):
        for i in range(starts):
            window = jax.tree.map(lambda x, at=(s, i): x[at], last)
            listed.assert_window(window, s, i % num_envs, listed.oldest + i // num_envs, whole, sizes.n_step)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), batch.data, host.data)
    np.testing.assert_array_equal(batch.index, host.index)
    np.testing.assert_array_equal(batch.weight, host.weight, strict=True)


@pytest.mark.parametrize("stop", [4, 6, 24])
def test_every_whole_window_is_drawn_and_none_other(stop):
    sizes = SOME[0]
    store, position = filling(VECTORS, sizes)(experience(VECTORS, STEPS, SEEDS, 2, 0.2), stop)
    batch = sampling(VECTORS, sizes)(store, position, keys(stop))
    count = (min(stop, sizes.places) - 3) * 2
    for drawn in np.asarray(batch.index):
        assert set(np.unique(drawn)) == set(range(count))
    expected = gathering(VECTORS, sizes)(store, position, batch.index.reshape(SEEDS, -1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), batch, expected)


def test_without_a_whole_window_what_is_drawn_is_finite():
    sizes = SOME[0]
    store, position = filling(VECTORS, sizes)(experience(VECTORS, STEPS, SEEDS, 2, 0.2), 2)
    batch = sampling(VECTORS, sizes)(store, position, keys(0))
    assert set(np.unique(batch.index)) == {0, 1}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(batch))


def test_draws_are_uniform():
    replay, position = sequences(VECTORS, **Sizes(3, 20, 1, 2, 2).arguments), Position(jnp.int32(7), jnp.int32(20))
    cells, draws = 17 * 3, 40_000
    batch = jax.jit(replay.sample, static_argnums=(4, 5))(
        replay.init(), position, jax.random.key(1), jnp.int32(0), 10, 4000
    )
    counts = np.bincount(np.asarray(batch.index).ravel(), minlength=cells)
    assert len(counts) == cells
    statistic = ((counts - draws / cells) ** 2).sum() / (draws / cells)
    assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)


def test_a_seed_that_is_alone_draws_the_same():
    """Without the axis of lanes in its windows, and with it in its store."""
    sizes = SOME[0]
    steps = experience(VECTORS, STEPS, SEEDS, 2, 0.2)
    store, position = filling(VECTORS, sizes)(steps, 20)
    together = sampling(VECTORS, sizes)(store, position, keys(3))
    alone = with_lane_axis(sequences(VECTORS, **sizes.arguments))
    add, where = jax.jit(alone.add), replays.start()
    one = alone.init()
    for t in range(20):
        one = add(one, where, *jax.tree.map(lambda x, t=t: x[t, 1], (steps.obs, steps.action, steps.step)))
        where = replays.advance(where, sizes.places)
    batch = jax.jit(alone.sample, static_argnums=(4, 5))(one, where, keys(3)[1], jnp.int32(0), 8, 32)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1]), batch, together)


def test_nothing_is_stored_beside_the_rows():
    sizes = {"num_envs": 2, "capacity": 1000, "n_step": 3, "gamma": GAMMA}
    windows, plain = sequences(VECTORS, **sizes, length=64, burn_in=16), uniform(VECTORS, **sizes)
    forms = [jax.eval_shape(replay.init) for replay in (windows, plain)]
    assert jax.tree.structure(forms[0]) == jax.tree.structure(forms[1])
    assert [x.shape for x in jax.tree.leaves(forms[0])] == [x.shape for x in jax.tree.leaves(forms[1])]


# What the compiled functions do with memory


def loop(spec, capacity, num_envs=2, lanes=3):
    """Adding and drawing in a loop of its own, for seeds side by side, from shapes alone."""
    replay = sequences(spec, num_envs=num_envs, capacity=capacity, n_step=2, gamma=GAMMA, length=5, burn_in=2)
    data = experience(spec, 1, 1, num_envs, 0.0)
    row = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), (data.obs, data.action, data.step))

    def body(i, carry, key):
        store, position, total = carry
        store = replay.add(store, position, *row)
        position = replays.advance(position, replays.ring_steps(capacity, num_envs))
        batch = replay.sample(store, position, jax.random.fold_in(key, i), i, 1, 8)
        return store, position, total + sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(batch.data))

    def run(store, position, key, count):
        carry = jax.lax.fori_loop(0, count, lambda i, carry: body(i, carry, key), (store, position, jnp.zeros(())))
        return carry[0], carry[2]

    stores = jax.eval_shape(lambda: jax.vmap(lambda _: replay.init())(jnp.arange(lanes)))
    seeds = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), lanes))
    over_lanes = jax.jit(jax.vmap(run, (0, None, 0, None)), donate_argnums=0)
    return over_lanes.lower(stores, jax.eval_shape(replays.start), seeds, 100).compile()


@pytest.mark.parametrize("spec", [VECTORS, IMAGES], ids=["vectors", "images"])
def test_drawing_takes_memory_of_the_batch_whatever_the_capacity(spec):
    small, large = (loop(spec, capacity) for capacity in (10**4, 10**6))
    text = large.as_text()
    assert not re.search(r"\[3,500000,[^]]*\]\S* copy\(", text)
    assert not re.search(r"\bscatter\(", text)
    assert large.memory_analysis().temp_size_in_bytes < small.memory_analysis().temp_size_in_bytes + 10_000
