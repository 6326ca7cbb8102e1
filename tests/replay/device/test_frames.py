"""The replay of the device that keeps each picture once, against that of the host, and what it does with memory."""

import re
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_list import GAMMA, PictureList, add_steps, picture_spec, stacked

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.frames import frames, gather, prioritized_frames
from ddpg_jax.replay.host.frames import FrameRing, PrioritizedFrameRing
from ddpg_jax.replay.stacks import StackShape
from ddpg_jax.training.device import snapshot as snapshots
from ddpg_jax.training.device.carry import Lane, start_clock
from ddpg_jax.types import Step

SEEDS, STEPS = 2, 30
RULE = Prioritization(alpha=0.7, beta=0.4, beta_end=1.0, epsilon=1e-3, updates=100)


class Sizes(NamedTuple):
    """Arguments of both rings."""

    num_envs: int = 2
    places: int = 9
    n_step: int = 2
    stack: int = 3

    @property
    def spec(self):
        return picture_spec(self.stack)

    @property
    def arguments(self):
        capacity = self.places * self.num_envs
        return {"num_envs": self.num_envs, "capacity": capacity, "n_step": self.n_step, "gamma": GAMMA}

    @property
    def shape(self):
        return StackShape(self.places, self.stack)

    @property
    def starts(self):
        """Starts of a full ring, of all environments."""
        return (self.places - self.stack) * self.num_envs


SOME = [Sizes(), Sizes(1, 14, 4, 2), Sizes(3, 6, 1, 1)]


def device_replay(sizes, rule=None):
    if rule is None:
        return frames(sizes.spec, **sizes.arguments)
    return prioritized_frames(sizes.spec, **sizes.arguments, rule=rule)


def host_ring(sizes, rule=None):
    if rule is None:
        return FrameRing(sizes.spec, range(SEEDS), **sizes.arguments)
    return PrioritizedFrameRing(sizes.spec, range(SEEDS), **sizes.arguments, rule=rule)


def experience(sizes, seed, rate):
    end, terminal = np.random.default_rng(seed).random((2, STEPS, SEEDS, sizes.num_envs)) < [[[[rate]]], [[[0.5]]]]
    return stacked(sizes.spec, np.stack([end & terminal, end & ~terminal], 1))


@cache
def filling(sizes, rule=None):
    """A jitted function that adds some steps of an experience to the replays of all seeds."""
    replay = device_replay(sizes, rule)

    def body(t, carry, data):
        store, position = carry
        row = jax.tree.map(lambda x: x[t], (data.obs, data.action, data.step))
        store = jax.vmap(replay.add, (0, None, 0, 0, 0))(store, position, *row)
        return store, replays.advance(position, sizes.places)

    def fill(data, start, stop, carry):
        return jax.lax.fori_loop(start, stop, lambda t, carry: body(t, carry, data), carry)

    jitted = jax.jit(fill)
    empty = jax.vmap(lambda _: replay.init())(jnp.arange(SEEDS)), replays.start()
    return lambda data, stop, start=0, carry=empty: jitted(data, start, stop, carry)


@cache
def gathering(sizes):
    """A jitted function that gathers the transitions at indices `[S, n]`."""

    def of_seed(store, position, index):
        return gather(store, position, index, sizes.spec, sizes.shape, n_step=sizes.n_step, gamma=jnp.float32(GAMMA))

    return jax.jit(jax.vmap(of_seed, (0, None, 0)))


@cache
def sampling(sizes, rule=None):
    """A jitted function that draws eight batches of 64 transitions of each seed."""
    replay = device_replay(sizes, rule)
    return jax.jit(jax.vmap(lambda *arguments: replay.sample(*arguments, jnp.int32(0), 8, 64), (0, None, 0)))


def every_start(sizes, stop):
    """Indices of all starts, again and again so that the program is the same, `[S, n]`, and the ages of the first."""
    length = min(stop, sizes.places)
    ages = np.arange(length - min(length, sizes.places - sizes.stack), length)
    index = (ages[:, None] * sizes.num_envs + np.arange(sizes.num_envs)).ravel()
    return np.tile(np.resize(index, sizes.starts), (SEEDS, 1)).astype(np.int32), ages


@settings(max_examples=30)
@given(st.sampled_from(SOME), st.integers(1, STEPS), st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.4, 0.8]))
def test_transitions_are_those_of_the_host_and_of_the_list(sizes, stop, seed, rate):
    data = experience(sizes, seed, rate)
    ring = host_ring(sizes)
    add_steps(ring, data, 0, stop)
    index, ages = every_start(sizes, stop)
    batch = jax.tree.map(np.asarray, gathering(sizes)(*filling(sizes)(data, stop), index))
    PictureList(data, stop, sizes.places, sizes.stack).assert_transitions(batch, ages, sizes.n_step)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), batch, ring.gather(index))  # lost pictures too


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 9, 10, 25])
def test_every_start_is_drawn_and_none_other(stop, rule):
    sizes = SOME[0]
    data = experience(sizes, 3, 0.3)
    store, position = filling(sizes, rule)(data, stop)
    batch = jax.tree.map(np.asarray, sampling(sizes, rule)(store, position, jax.random.split(jax.random.key(0), SEEDS)))
    index, oldest = batch.index, max(0, stop - sizes.places)
    if rule is not None:  # places of rows, not their ages
        store, index = store.rows, (index - oldest * 2) % (sizes.places * 2)
    expected = {int(i) for i in every_start(sizes, stop)[0].ravel()}
    assert [set(np.unique(drawn)) for drawn in index] == [expected] * SEEDS
    gathered = gathering(sizes)(store, position, index.reshape(SEEDS, -1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), batch.data, gathered.data)
    np.testing.assert_array_equal(batch.weight.reshape(SEEDS, -1), gathered.weight)  # no error came back: all equal


@pytest.mark.parametrize("sizes", SOME[:2], ids=["two environments", "one"])
def test_the_same_writes_give_the_priorities_of_the_host(sizes):
    """Rows that come and go, errors that come back, and several times round the ring."""
    data, rng = experience(sizes, 5, 0.2), np.random.default_rng(0)
    ring, carry, slots = host_ring(sizes, RULE), None, np.arange(sizes.places * sizes.num_envs)
    write_back = jax.jit(jax.vmap(device_replay(sizes, RULE).write_back))
    for stop in range(1, STEPS + 1):
        add_steps(ring, data, stop - 1, stop)
        store, position = filling(sizes, RULE)(data, stop, stop - 1, **({} if carry is None else {"carry": carry}))
        index = ring.draw(1, 4, stop)
        errors = rng.exponential(size=index.shape).astype(np.float32)
        ring.write_back(index, errors)
        carry = write_back(store, (index % len(slots)).astype(np.int32), errors), position
        theirs = ring.tree.get(np.tile(slots, (SEEDS, 1)))
        np.testing.assert_allclose(carry[0].tree[-1][:, : len(slots)], theirs, rtol=1e-5)
        rows = range(stop - ring.starts, stop)
        may = {row % sizes.places * sizes.num_envs + e for row in rows for e in range(sizes.num_envs)}
        assert [set(np.flatnonzero(row)) for row in theirs] == [may] * SEEDS


def kept(store, position, replay, stop):
    """What a snapshot of the device loop reads of a store, `(first, stop) -> rows`, and its first row."""
    lane = Lane((), (), (), (), (), store, (), ())
    carry = snapshots.DeviceCarry(stop, 0, lane, start_clock()._replace(position=position), ())
    return snapshots.snapshot(carry, replay, SEEDS, {})


def taken_up(sizes, snapshot, replay, rule):
    """A store filled with the rows of a snapshot by what resumes the loop."""
    store = jax.eval_shape(lambda: jax.vmap(lambda _: device_replay(sizes, rule).init())(jnp.arange(SEEDS)))
    like = Lane((), (), (), (), (), store, (), ()), jax.eval_shape(start_clock), ()
    compiled = SimpleNamespace(replay=replay, like=like, lanes=SEEDS, shard=jnp_tree, replicate=jnp_tree)
    carry = snapshots.restore(compiled, snapshot, SEEDS)
    return carry.lane.store, carry.clock.position


def jnp_tree(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize(("stop", "rate"), [(4, 0.3), (20, 0.1), (20, 0.8)])
def test_a_restored_replay_goes_on_as_the_one_before(stop, rate):
    sizes = SOME[0]
    data, replay = experience(sizes, stop, rate), device_replay(sizes)
    carry = filling(sizes)(data, stop)
    restored = taken_up(sizes, kept(*carry, replay, stop), replay, None)
    for name in ("columns", "counts"):
        np.testing.assert_array_equal(getattr(restored[0].rows, name), getattr(carry[0].rows, name))
    for end in range(stop, stop + 10):
        index = every_start(sizes, end)[0]
        one, other = (gathering(sizes)(*filling(sizes)(data, end, stop, each), index) for each in (carry, restored))
        there = np.asarray(one.weight) > 0
        np.testing.assert_array_equal(one.weight, other.weight)
        for ours, theirs in zip(one.data[:5], other.data[:5], strict=True):
            np.testing.assert_array_equal(ours[there], theirs[there])


def test_priorities_are_restored_with_the_rows():
    sizes, replay = SOME[0], device_replay(SOME[0], RULE)
    store, position = filling(sizes, RULE)(experience(sizes, 1, 0.2), 25)
    restored, _ = taken_up(sizes, kept(store, position, replay, 25), replay, RULE)
    jax.tree.map(np.testing.assert_array_equal, restored.tree, store.tree)
    np.testing.assert_array_equal(*(replay.rows(each).pictures[:, : sizes.places] for each in (restored, store)))


@pytest.mark.parametrize("wrong", ["firsts@begins", "counts"])
def test_rows_that_are_not_those_of_stacks_are_refused(wrong):
    sizes, replay = SOME[0], device_replay(SOME[0])
    snapshot = kept(*filling(sizes)(experience(sizes, 1, 0.4), 9), replay, 9)

    def read(first, stop):
        rows = dict(snapshot.read_rows(first, stop))
        return rows | {f"rows/{wrong}": rows[f"rows/{wrong}"][1:]}

    with pytest.raises(StorageError, match="does not fit the configuration"):
        taken_up(sizes, snapshot._replace(read_rows=read), replay, None)


def test_rows_are_kept_as_the_host_keeps_them():
    sizes, data = SOME[0], experience(SOME[0], 2, 0.4)
    ring = host_ring(sizes)
    add_steps(ring, data, 0, 9)
    ours = kept(*filling(sizes)(data, 9), device_replay(sizes), 9).read_rows(0, 9)
    theirs = ring.rows(0, 9)
    np.testing.assert_array_equal(ours["rows/begins"], theirs["begins"])
    for ours_name, name in (("rows/pictures", "frames"), ("rows/firsts@begins", "firsts@begins")):
        np.testing.assert_array_equal(ours[ours_name], theirs[name].reshape(ours[ours_name].shape))


def test_a_replay_without_room_for_a_stack_is_refused():
    with pytest.raises(ConfigError, match=r"set it to 8 or more"):
        device_replay(Sizes(places=3))


# What the compiled functions do with memory


LANES, E = 3, 2


@cache
def compiled(steps, what):
    """`add` or `sample` of three seeds with one position for all, compiled from shapes alone."""
    spec = picture_spec(3, (8, 8, 1))
    replay = frames(spec, num_envs=E, capacity=steps * E, n_step=3, gamma=GAMMA)
    rows = jax.eval_shape(lambda: jax.vmap(lambda _: replay.init())(jnp.arange(LANES)))
    position = jax.eval_shape(replays.start)

    def shape(*more, dtype="float32"):
        return jax.ShapeDtypeStruct((LANES, E, *more), dtype)

    obs = shape(*spec.obs_shape, dtype="uint8")
    if what == "add":
        step = Step(obs, obs, shape(), shape(dtype="bool"), shape(dtype="bool"))
        add = jax.jit(jax.vmap(replay.add, (0, None, 0, 0, 0)), donate_argnums=0)
        return add.lower(rows, position, obs, shape(spec.action_size), step).compile()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), LANES))
    sample = jax.vmap(lambda rows, position, key: replay.sample(rows, position, key, jnp.int32(0), 4, 8), (0, None, 0))
    return jax.jit(sample).lower(rows, position, keys).compile()


def test_adding_writes_in_place():
    steps = 50_000
    add = compiled(steps, "add")
    memory = add.memory_analysis()
    assert not re.search(rf"\[{LANES},{steps}[^]]*\]\S* copy\(", add.as_text())
    assert memory.alias_size_in_bytes >= steps * LANES * E * 64 * 9 // 8
    assert memory.temp_size_in_bytes < 10_000


def test_memory_is_at_most_1_15_pictures_a_step_and_drawing_takes_that_of_the_batch():
    small, large = (compiled(steps, "sample").memory_analysis() for steps in (10**3, 10**5))
    assert small.temp_size_in_bytes == large.temp_size_in_bytes
    spec = picture_spec(3, (48, 48, 1))
    rows = jax.eval_shape(frames(spec, num_envs=1, capacity=10**5, n_step=3, gamma=GAMMA).init)
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(rows)) <= 1.15 * 48 * 48 * 10**5
