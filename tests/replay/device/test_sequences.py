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
from step_list import CARRY, GAMMA, IMAGES, VECTORS, StepList, add_steps, experience

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.prioritized import prioritized
from ddpg_jax.replay.device.ring import Position, uniform, with_lane_axis
from ddpg_jax.replay.device.sequences import gather, prioritized_sequences, sequences
from ddpg_jax.replay.host.sequences import PrioritizedSequenceRing, SequenceRing
from ddpg_jax.replay.windows import WindowShape

SEEDS, STEPS = 2, 24


RULE = Prioritization(alpha=0.7, beta=0.4, beta_end=1.0, epsilon=1e-3, updates=100)


class Sizes(NamedTuple):
    """Arguments of both rings."""

    num_envs: int = 2
    places: int = 9
    n_step: int = 2
    length: int = 3
    burn_in: int = 1
    keep_every: int = 0

    @property
    def arguments(self):
        sizes = self._asdict()
        carry_size = CARRY if self.keep_every else 0
        return sizes | {"capacity": sizes.pop("places") * self.num_envs, "gamma": GAMMA, "carry_size": carry_size}

    @property
    def shape(self):
        return WindowShape(self.length, self.burn_in, self.n_step, self.keep_every)

    def starts(self, stop):
        """Ages at which a window may begin after so many steps."""
        oldest = max(0, stop - self.places)
        times = range(oldest, stop - self.shape.whole + 1)
        return [t - oldest for t in times if not self.keep_every or t % self.places % self.keep_every == 0]


def device_replay(spec, sizes, rule):
    if rule is None:
        return sequences(spec, **sizes.arguments)
    return prioritized_sequences(spec, **sizes.arguments, rule=rule)


def host_ring(spec, sizes, rule):
    if rule is None:
        return SequenceRing(spec, range(SEEDS), **sizes.arguments)
    return PrioritizedSequenceRing(spec, range(SEEDS), **sizes.arguments, rule=rule)


@cache
def filling(spec, sizes, rule=None):
    """A jitted function that adds some steps of an experience to the replays of all seeds."""
    replay = device_replay(spec, sizes, rule)

    def body(t, carry, data):
        store, position = carry
        row = jax.tree.map(lambda x: x[t], (data.obs, data.action, data.step, data.carry))
        row = row if sizes.keep_every else row[:3]
        return jax.vmap(replay.add, (0, None, *[0] * len(row)))(store, position, *row), replays.advance(
            position, sizes.places
        )

    def fill(data, start, stop, carry):
        return jax.lax.fori_loop(start, stop, lambda t, carry: body(t, carry, data), carry)

    jitted = jax.jit(fill)
    empty = jax.vmap(lambda _: replay.init())(jnp.arange(SEEDS)), replays.start()
    return lambda data, stop, start=0, carry=empty: jitted(data, start, stop, carry)


@cache
def gathering(spec, sizes):
    """A jitted function that gathers the windows at indices `[S, n]`."""

    def of_seed(store, position, index):
        return gather(store, position, index, spec, sizes.shape, gamma=GAMMA)

    return jax.jit(jax.vmap(of_seed, (0, None, 0)))


@cache
def sampling(spec, sizes, rule=None):
    """A jitted function that draws eight batches of 32 windows of each seed."""
    replay = device_replay(spec, sizes, rule)
    return jax.jit(jax.vmap(lambda *arguments: replay.sample(*arguments, jnp.int32(0), 8, 32), (0, None, 0)))


def keys(seed):
    return jax.random.split(jax.random.key(seed), SEEDS)


SOME = [Sizes(), Sizes(1, 5, 1, 1, 0), Sizes(3, 7, 3, 2, 3), Sizes(2, 10, 2, 2, 2, keep_every=3)]
KINDS = [*((VECTORS, sizes) for sizes in SOME), (IMAGES, SOME[2]), (IMAGES, SOME[3])]


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.data())
def test_windows_are_those_of_the_host_and_of_the_list(kind, data):
    spec, sizes = kind
    whole, num_envs = sizes.shape.whole, sizes.num_envs
    stop, end_rate = data.draw(st.integers(whole, STEPS)), data.draw(st.sampled_from([0.0, 0.2, 0.6]))
    steps = experience(spec, STEPS, SEEDS, num_envs, end_rate, seed=data.draw(st.integers(0, 99)))
    ring = host_ring(spec, sizes, None)
    add_steps(ring, steps, 0, stop)
    store, position = filling(spec, sizes)(steps, stop)
    every = [age * num_envs + e for age in sizes.starts(stop) for e in range(num_envs)]
    index = np.resize(every, (SEEDS, sizes.places * num_envs))  # again and again, so that the program is the same
    batch = jax.tree.map(np.asarray, gathering(spec, sizes)(store, position, index))
    listed = StepList(steps, stop, sizes.places)
    for s, i in np.ndindex(index.shape):
        window = jax.tree.map(lambda x, at=(s, i): x[at], batch.data)
        t, e = listed.oldest + index[s, i] // num_envs, index[s, i] % num_envs
        listed.assert_window(window, s, e, t, whole, sizes.n_step)
        assert not sizes.keep_every or (window.obs.carry == steps.carry[t, s, e]).all()
    host = ring.gather(index)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), batch.data, host.data)
    np.testing.assert_array_equal(batch.index, host.index)
    np.testing.assert_array_equal(batch.weight, host.weight, strict=True)


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("sizes", [SOME[0], SOME[3]], ids=["anywhere", "kept"])
@pytest.mark.parametrize("stop", [4, 6, 17, 24])
def test_every_window_that_may_be_drawn_is_and_none_other(stop, sizes, rule):
    steps = experience(VECTORS, STEPS, SEEDS, 2, 0.2)
    store, position = filling(VECTORS, sizes, rule)(steps, stop)
    batch = sampling(VECTORS, sizes, rule)(store, position, keys(stop))
    index = np.asarray(batch.index)
    if rule is not None:  # places of rows, not their ages
        store, oldest = store.rows, max(0, stop - sizes.places)
        index = (index - oldest * 2) % (sizes.places * 2)
    for drawn in index:
        assert set(np.unique(drawn)) == {age * 2 + e for age in sizes.starts(stop) for e in range(2)}
    expected = gathering(VECTORS, sizes)(store, position, index.reshape(SEEDS, -1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), batch.data, expected.data)
    np.testing.assert_array_equal(batch.weight, np.ones(index.shape))


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("sizes", [SOME[0], SOME[3]], ids=["anywhere", "kept"])
def test_without_a_whole_window_what_is_drawn_is_finite(sizes, rule):
    store, position = filling(VECTORS, sizes, rule)(experience(VECTORS, STEPS, SEEDS, 2, 0.2), 2)
    batch = sampling(VECTORS, sizes, rule)(store, position, keys(0))
    assert ((np.asarray(batch.index) >= 0) & (np.asarray(batch.index) < sizes.places * 2)).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(batch))


@pytest.mark.parametrize("sizes", [SOME[1], SOME[3]], ids=["one step", "kept"])
def test_the_same_writes_give_the_priorities_of_the_host(sizes):
    """Windows that become whole, errors that come back, and several times round the ring."""
    data, rng = experience(VECTORS, STEPS, SEEDS, sizes.num_envs, 0.2), np.random.default_rng(0)
    ring, carry, slots = host_ring(VECTORS, sizes, RULE), None, np.arange(sizes.places * sizes.num_envs)
    replay = prioritized_sequences(VECTORS, **sizes.arguments, rule=RULE)
    write_back = jax.jit(jax.vmap(replay.write_back))
    for stop in range(1, STEPS + 1):
        add_steps(ring, data, stop - 1, stop)
        more = {} if carry is None else {"carry": carry}
        store, position = filling(VECTORS, sizes, RULE)(data, stop, stop - 1, **more)
        if stop >= sizes.shape.whole:
            index = ring.draw(1, 4, stop)
            errors = rng.exponential(size=index.shape).astype(np.float32)
            ring.write_back(index, errors)
            store = write_back(store, (index % len(slots)).astype(np.int32), errors)
        carry = store, position
        theirs = ring.tree.get(np.tile(slots, (SEEDS, 1)))
        np.testing.assert_allclose(store.tree[-1][:, : len(slots)], theirs, rtol=1e-5)
        oldest = ring.row_range[0]
        may = {(oldest + age) % sizes.places * sizes.num_envs + e
               for age in sizes.starts(stop) for e in range(sizes.num_envs)}  # fmt: skip
        assert [set(np.flatnonzero(row)) for row in theirs] == [may] * SEEDS


def test_weights_are_those_of_the_host():
    sizes, data = SOME[0], experience(VECTORS, STEPS, SEEDS, 2, 0.2)
    ring = host_ring(VECTORS, sizes, RULE)
    add_steps(ring, data, 0, 20)
    store, position = filling(VECTORS, sizes, RULE)(data, 20)
    rows = np.arange(ring.oldest, ring.oldest + 6 * 2)
    errors = np.random.default_rng(0).exponential(size=(SEEDS, 1, 12)).astype(np.float32)
    ring.write_back(np.tile(rows, (SEEDS, 1, 1)), errors)
    replay = prioritized_sequences(VECTORS, **sizes.arguments, rule=RULE)
    store = jax.jit(jax.vmap(replay.write_back, (0, None, 0)))(store, jnp.asarray(rows[None] % 18), errors)
    batch = sampling(VECTORS, sizes, RULE)(store, position, keys(0))
    weight = ring.weights((np.asarray(batch.index) - ring.oldest) % 18 + ring.oldest)
    np.testing.assert_allclose(batch.weight, weight, rtol=1e-5)
    assert batch.weight.min() < 0.9


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
    sizes, steps = SOME[3], experience(VECTORS, STEPS, SEEDS, 2, 0.2)
    store, position = filling(VECTORS, sizes, RULE)(steps, 20)
    together = sampling(VECTORS, sizes, RULE)(store, position, keys(3))
    alone = with_lane_axis(device_replay(VECTORS, sizes, RULE))
    add, one, where = jax.jit(alone.add), alone.init(), replays.start()
    for t in range(20):
        row = jax.tree.map(lambda x, t=t: x[t, 1], (steps.obs, steps.action, steps.step, steps.carry))
        one, where = add(one, where, *row), replays.advance(where, sizes.places)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[1]), one, store)
    batch = jax.jit(alone.sample, static_argnums=(4, 5))(one, where, keys(3)[1], jnp.int32(0), 8, 32)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1]), batch, together)


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("sizes", [SOME[0], SOME[3]], ids=["anywhere", "kept"])
def test_rows_are_taken_out_and_put_back(sizes, rule):
    """As a checkpoint does, which keeps all that is beside them whole."""
    store, _ = filling(VECTORS, sizes, rule)(experience(VECTORS, STEPS, SEEDS, 2, 0.2), 17)
    replay = device_replay(VECTORS, sizes, rule)
    rows, bare = replay.rows(store), replay.with_rows(store, ())
    assert rows.columns.shape[:3] == (SEEDS, sizes.places, 2)
    assert len(jax.tree.leaves(bare)) == len(jax.tree.leaves(store)) - 1
    jax.tree.map(np.testing.assert_array_equal, replay.with_rows(bare, rows), store)


def test_nothing_is_stored_beside_the_rows():
    sizes = {"num_envs": 2, "capacity": 1000, "n_step": 3, "gamma": GAMMA}
    windows, plain = sequences(VECTORS, **sizes, length=64, burn_in=16), uniform(VECTORS, **sizes)
    assert size(windows) == size(plain)
    windows = prioritized_sequences(VECTORS, **sizes, length=64, burn_in=16, rule=RULE)
    assert size(windows) == size(prioritized(VECTORS, **sizes, rule=RULE))
    windows = sequences(VECTORS, **sizes, length=64, burn_in=16, keep_every=9, carry_size=5)
    assert size(windows) == size(plain) + 56 * 2 * 5 * 4  # at 56 of the 500 places


def size(replay):
    """Bytes of an empty store."""
    return sum(x.nbytes for x in jax.tree.leaves(replay.init()))


# What the compiled functions do with memory


def loop(spec, capacity, num_envs=2, lanes=3, **more):
    """Adding, drawing and writing back in a loop of its own, for seeds side by side, from shapes alone."""
    kind = prioritized_sequences if "rule" in more else sequences
    sizes = {"num_envs": num_envs, "capacity": capacity, "n_step": 2, "gamma": GAMMA, "length": 5, "burn_in": 2}
    replay, data = kind(spec, **sizes, **more), experience(spec, 1, 1, num_envs, 0.0)
    row = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), (data.obs, data.action, data.step, data.carry))

    def body(i, carry, key):
        store, position, total = carry
        store = replay.add(store, position, *(row if "keep_every" in more else row[:3]))
        position = replays.advance(position, replays.ring_steps(capacity, num_envs))
        batch = replay.sample(store, position, jax.random.fold_in(key, i), i, 1, 8)
        store = replay.write_back(store, batch.index, batch.data.reward[..., 0])
        return store, position, total + sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(batch.data))

    def run(store, position, key, count):
        carry = jax.lax.fori_loop(0, count, lambda i, carry: body(i, carry, key), (store, position, jnp.zeros(())))
        return carry[0], carry[2]

    stores = jax.eval_shape(lambda: jax.vmap(lambda _: replay.init())(jnp.arange(lanes)))
    seeds = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), lanes))
    over_lanes = jax.jit(jax.vmap(run, (0, None, 0, None)), donate_argnums=0)
    return over_lanes.lower(stores, jax.eval_shape(replays.start), seeds, 100).compile()


KEPT = {"keep_every": 2, "carry_size": CARRY}


@pytest.mark.parametrize(
    ("spec", "more"),
    [(IMAGES, {}), (VECTORS, KEPT), pytest.param(VECTORS, KEPT | {"rule": RULE}, marks=pytest.mark.slow)],
    ids=["images", "kept", "kept and prioritized"],
)
def test_drawing_takes_memory_of_the_batch_alone(spec, more):
    """Neither the loop nor the call keeps a second ring, second states or a second tree."""
    compiled = loop(spec, 10**6, **more)
    assert not re.search(r"\[3,(250|500|1000)000,?[^]]*\]\S* copy\(", compiled.as_text())
    assert compiled.memory_analysis().alias_size_in_bytes > 20_000_000
    assert compiled.memory_analysis().temp_size_in_bytes < 100_000
