"""The ring of the device loop against the ring of the host, and what its compiled functions do with memory."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.ring import Position, advance, ring_steps, start, uniform
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.types import EnvSpec, Step

SPEC = EnvSpec((3,), "float32", (-1.0, -2.0), (1.0, 3.0))
IMAGES = EnvSpec((4, 2, 3), "uint8", (-1.0,), (1.0,))
SEEDS, STEPS, GAMMA = 2, 20, 0.9


def experience(spec, num_envs, ends, seed=0):
    """`(obs, action, Step)` of `STEPS` steps, leaves `[T, S, E, ...]`, every number different."""
    rng, shape = np.random.default_rng(seed), (STEPS, SEEDS, num_envs)
    if spec.obs_dtype == "uint8":
        obs, next_obs = rng.integers(0, 256, (2, *shape, *spec.obs_shape), np.uint8)
    else:
        obs, next_obs = rng.normal(size=(2, *shape, *spec.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (*shape, spec.action_size)).astype(np.float32)
    # what is acted on next is never stored: the replay must not take it for the successor
    return obs, action, Step(np.full_like(obs, 99), next_obs, rng.normal(size=shape).astype(np.float32), *ends)


@cache
def filling(spec, num_envs, capacity, n_step):
    """A jitted function that adds step after step, and gathers every index after each of them."""
    replay = uniform(spec, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=GAMMA)
    steps = ring_steps(capacity, num_envs)
    index = jnp.arange(steps * num_envs)

    def after(carry, row):
        rows, position = carry
        rows = jax.vmap(replay.add, (0, None, 0, 0, 0))(rows, position, *row)
        position = advance(position, steps)
        gathered = jax.vmap(
            lambda rows: replays.gather(rows, position, index, spec, n_step=n_step, gamma=jnp.float32(GAMMA))
        )(rows)
        return (rows, position), (position, gathered)

    def whole(data):
        rows = jax.vmap(lambda _: replay.init())(jnp.arange(SEEDS))
        return jax.lax.scan(after, (rows, start()), data)[1]

    return jax.jit(whole)


def assert_equals_the_ring_of_the_host(spec, num_envs, capacity, n_step, ends):
    obs, action, step = experience(spec, num_envs, ends)
    positions, batches = jax.tree.map(np.asarray, filling(spec, num_envs, capacity, n_step)((obs, action, step)))
    ring = Ring(spec, range(SEEDS), num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=GAMMA)
    for t in range(STEPS):
        ring.add(obs[t], action[t], jax.tree.map(lambda x, t=t: x[t], step))
        assert positions.length[t] * num_envs == len(ring)
        stored = np.tile(np.arange(len(ring)), (SEEDS, 1))
        expected, got = ring.gather(stored), jax.tree.map(lambda x, t=t: x[t][:, : len(ring)], batches)
        for name in ("obs", "action", "next_obs"):  # copied, and nothing else
            ours, theirs = getattr(got.data, name), getattr(expected.data, name)
            np.testing.assert_array_equal(ours, theirs, strict=True, err_msg=f"{name} after step {t}")
        for name in ("reward", "discount"):  # sums of the same terms, which the compiler may contract
            ours, theirs = getattr(got.data, name), getattr(expected.data, name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, strict=True, err_msg=f"{name}, step {t}")
        np.testing.assert_array_equal(got.weight, expected.weight, strict=True)
        np.testing.assert_array_equal(got.index, expected.index)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 5), (1, 1), (2, 7), (2, 50), (3, 7), (3, 3)])
def test_every_transition_is_that_of_the_host(num_envs, capacity, n_step):
    """After every step, from the first over several times round the ring, except where it holds more than all."""

    @settings(max_examples=25)
    @given(st.data())
    def prove(data):
        likely = data.draw(st.sampled_from([0.05, 0.3, 0.6]))
        draws = data.draw(arrays(np.float32, (2, STEPS, SEEDS, num_envs), elements=st.floats(0, 1, width=32)))
        assert_equals_the_ring_of_the_host(SPEC, num_envs, capacity, n_step, draws < likely)

    prove()


@pytest.mark.parametrize("n_step", [1, 3])
def test_every_transition_is_that_of_the_host_for_images_too(n_step):
    for likely in (0.1, 0.4):
        ends = np.random.default_rng(1).random((2, STEPS, SEEDS, 2)) < likely
        assert_equals_the_ring_of_the_host(IMAGES, 2, 7, n_step, ends)
    rows = uniform(IMAGES, num_envs=2, capacity=7, n_step=n_step, gamma=GAMMA).init()
    assert [image.dtype for image in rows.images] == [np.uint8] * 2


def filled(num_envs, steps, length, *, n_step=1, head=0):
    """The replay of one seed, all numbers in it different and no row an end, and a position."""
    replay = uniform(SPEC, num_envs=num_envs, capacity=steps * num_envs, n_step=n_step, gamma=GAMMA)
    rows = replay.init()
    columns = jnp.arange(rows.columns.size, dtype=jnp.float32).reshape(rows.columns.shape)
    columns = columns.at[:, :, 3:5].set(0)
    return replay, rows._replace(columns=columns), Position(jnp.int32(head), jnp.int32(length))


@pytest.mark.parametrize("num_envs", [1, 3])
def test_gather_takes_indices_of_any_shape(num_envs):
    _, rows, position = filled(num_envs, 8, 8, head=5)
    flat = jnp.asarray(np.random.default_rng(1).integers(0, 8 * num_envs, 24))
    gather = jax.jit(partial(replays.gather, spec=SPEC, n_step=3, gamma=GAMMA))
    one, other = (gather(rows, position, index) for index in (flat, flat.reshape(2, 3, 4)))
    assert other.data.obs.shape == (2, 3, 4, 3)
    assert other.weight.shape == other.index.shape == other.data.reward.shape == (2, 3, 4)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


# Position and size


def test_the_position_goes_round():
    for steps in (1, 2, 5):
        position = start()
        for t in range(3 * steps + 2):
            assert (int(position.head), int(position.length)) == (t % steps, min(t, steps))
            assert position.head.dtype == position.length.dtype == jnp.int32
            position = jax.jit(advance, static_argnums=1)(position, steps)


def test_the_position_goes_round_in_the_longest_ring():
    steps = 2**31 - 2
    position = advance(Position(jnp.int32(steps - 1), jnp.int32(steps - 1)), steps)
    assert (int(position.head), int(position.length)) == (0, steps)
    position = advance(position, steps)
    assert (int(position.head), int(position.length)) == (1, steps)


@pytest.mark.parametrize(("capacity", "num_envs", "steps"), [(1, 1, 1), (7, 2, 4), (8, 2, 4), (9, 2, 5), (2, 3, 1)])
def test_the_capacity_is_rounded_up_to_whole_steps(capacity, num_envs, steps):
    assert ring_steps(capacity, num_envs) == steps
    rows = uniform(SPEC, num_envs=num_envs, capacity=capacity, n_step=1, gamma=GAMMA).init()
    assert rows.columns.shape == (steps, num_envs, 2 + 3 + 2 * 3)  # no more than what is stored
    assert not rows.columns.any()


# Drawing


def drawn(replay, rows, position, seed, updates=4, batch_size=16):
    sample = jax.jit(replay.sample, static_argnums=(4, 5))
    return jax.tree.map(np.asarray, sample(rows, position, jax.random.key(seed), jnp.int32(0), updates, batch_size))


@pytest.mark.parametrize(("num_envs", "length", "head"), [(1, 40, 0), (3, 20, 20), (3, 40, 17)])
def test_draws_are_uniform(num_envs, length, head):
    replay, rows, position = filled(num_envs, 40, length, head=head)
    cells, draws = length * num_envs, 40_000
    index = drawn(replay, rows, position, 0, 100, draws // 100).index
    counts = np.bincount(index.ravel(), minlength=cells)
    assert len(counts) == cells
    statistic = ((counts - draws / cells) ** 2).sum() / (draws / cells)
    assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)
    pairs = np.corrcoef(index[:, :-1].ravel(), index[:, 1:].ravel())[0, 1]
    assert abs(pairs) < 0.03  # neighbours of a batch have nothing to do with each other


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_ring_with_one_step_gives_only_that(num_envs, n_step):
    replay, rows, position = filled(num_envs, 5, 1, n_step=n_step, head=1)
    batch = drawn(replay, rows, position, 1)
    assert set(np.unique(batch.index)) == set(range(num_envs))
    np.testing.assert_array_equal(batch.data.obs, np.asarray(rows.columns)[0, batch.index][..., 5:8])
    np.testing.assert_array_equal(batch.data.next_obs, np.asarray(rows.columns)[0, batch.index][..., 8:])


def test_a_sample_is_what_gather_gives_at_its_indices():
    replay, rows, position = filled(3, 8, 8, n_step=3, head=5)
    batch = drawn(replay, rows, position, 2, 5, 7)
    assert (batch.index.shape, batch.index.dtype, batch.data.obs.shape) == ((5, 7), np.int32, (5, 7, 3))
    assert batch.index.min() >= 0
    assert batch.index.max() < 24
    index = jnp.asarray(batch.index)
    gather = jax.jit(partial(replays.gather, spec=SPEC, n_step=3))
    expected = gather(rows, position, index, gamma=jnp.float32(GAMMA))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), batch, expected)
    rows_folded = np.minimum(3, 8 - batch.index // 3)
    np.testing.assert_allclose(batch.data.discount, GAMMA**rows_folded, rtol=1e-6)


def test_draws_depend_on_the_key_and_the_length_alone():
    replay, rows, position = filled(2, 30, 30)
    first = drawn(replay, rows, position, 3).index
    np.testing.assert_array_equal(drawn(replay, rows, position, 3).index, first)
    moved = replay, rows._replace(columns=-rows.columns), Position(jnp.int32(11), jnp.int32(30))
    np.testing.assert_array_equal(drawn(*moved, 3).index, first)
    assert not np.array_equal(drawn(replay, rows, position, 4).index, first)
    assert not np.array_equal(first[0], first[1])  # updates of a call


def test_uniform_replay_takes_nothing_back():
    replay, rows, _ = filled(2, 4, 4)
    index = jnp.zeros((1, 2), jnp.int32)
    assert replay.write_back(rows, index, jnp.ones((1, 2))) is rows


# What the compiled functions do with memory


LANES, E, U, B = 3, 2, 4, 8


def compiled(spec, capacity, what):
    """`add` or `sample` of three seeds with one position for all, compiled from shapes alone."""
    replay = uniform(spec, num_envs=E, capacity=capacity, n_step=3, gamma=GAMMA)
    rows = jax.eval_shape(lambda: jax.vmap(lambda _: replay.init())(jnp.arange(LANES)))
    position = jax.eval_shape(start)

    def shape(*more, dtype="float32"):
        return jax.ShapeDtypeStruct((LANES, E, *more), dtype)

    obs = shape(*spec.obs_shape, dtype=spec.obs_dtype)
    if what == "add":
        step = Step(obs, obs, shape(), shape(dtype="bool"), shape(dtype="bool"))
        add = jax.jit(jax.vmap(replay.add, (0, None, 0, 0, 0)), donate_argnums=0)
        return add.lower(rows, position, obs, shape(spec.action_size), step).compile()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), LANES))
    sample = jax.vmap(lambda rows, position, key: replay.sample(rows, position, key, jnp.int32(0), U, B), (0, None, 0))
    return jax.jit(sample).lower(rows, position, keys).compile()


def row_bytes(spec):
    """Of one step of all lanes and environments."""
    pixels = np.prod(spec.obs_shape) * (1 if spec.obs_dtype == "uint8" else 4)
    return int(LANES * E * (4 * (spec.action_size + 3) + 2 * pixels))


@pytest.mark.parametrize("spec", [SPEC, IMAGES], ids=["vectors", "images"])
def test_adding_writes_one_row_in_place(spec):
    steps = 50_000
    add = compiled(spec, steps * E, "add")
    text, memory = add.as_text(), add.memory_analysis()
    assert "dynamic-update-slice(" in text
    assert not re.search(r"\bscatter\(|\bwhile\(", text)
    assert not re.search(rf"\[{LANES},{steps},[^]]*\]\S* copy\(", text)
    assert memory.alias_size_in_bytes == steps * row_bytes(spec)  # all of the ring comes back where it was
    assert memory.output_size_in_bytes < memory.alias_size_in_bytes + 1024
    assert memory.temp_size_in_bytes < 10 * row_bytes(spec)


@pytest.mark.parametrize("spec", [SPEC, IMAGES], ids=["vectors", "images"])
def test_drawing_takes_memory_of_the_batch_whatever_the_capacity(spec):
    small, large = (compiled(spec, capacity, "sample").memory_analysis() for capacity in (10**3, 10**5))
    assert small.temp_size_in_bytes == large.temp_size_in_bytes < 3 * U * B * row_bytes(spec)
    assert small.output_size_in_bytes == large.output_size_in_bytes
    assert large.argument_size_in_bytes > 10**5 // E * row_bytes(spec)


def test_a_donated_ring_is_written_where_it_is():
    replay = uniform(SPEC, num_envs=E, capacity=1000, n_step=1, gamma=GAMMA)
    add = jax.jit(replay.add, donate_argnums=0)
    obs, action, step = jax.tree.map(lambda x: x[0, 0], experience(SPEC, E, np.zeros((2, STEPS, SEEDS, E), bool)))
    rows = add(replay.init(), start(), obs, action, step)
    where = rows.columns.unsafe_buffer_pointer()
    again = add(rows, advance(start(), 500), obs, action, step)
    assert rows.columns.is_deleted()
    assert again.columns.unsafe_buffer_pointer() == where
    np.testing.assert_array_equal(again.columns[0], again.columns[1])
    assert again.columns[:2].any()
    assert not again.columns[2:].any()
