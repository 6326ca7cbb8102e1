"""The ring of windows against a plain list of steps, and on their way to the device."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from step_list import GAMMA, IMAGES, VECTORS, StepList, add_steps, experience

from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.host.sequences import SequenceRing
from ddpg_jax.training.host.transfer import batch_transfer
from ddpg_jax.types import EnvSpec, Step, Window


def make(spec=VECTORS, seeds=(0, 1), *, num_envs=1, places=12, n_step=1, length=3, burn_in=0, **more):
    sizes = {"num_envs": num_envs, "capacity": places * num_envs, "n_step": n_step, "gamma": GAMMA}
    return SequenceRing(spec, seeds, **sizes, length=length, burn_in=burn_in, **more)


class Case(NamedTuple):
    """A ring, what was added to it, and the list of it."""

    ring: Any
    listed: StepList
    num_envs: int

    @property
    def whole(self):
        return self.ring.windows.whole

    def every_start(self):
        """`(index, time)` of each window that is whole, by the list."""
        oldest = self.listed.oldest
        times = range(oldest, self.listed.stop - self.whole + 1)
        return [((t - oldest) * self.num_envs + e, t, e) for t in times for e in range(self.num_envs)]


@st.composite
def cases(draw, kinds=(VECTORS, IMAGES), seeds=2):
    """Rings that have gone round or not, with a window whole at least."""
    spec, num_envs = draw(st.sampled_from(kinds)), draw(st.integers(1, 3))
    length, burn_in, n_step = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    whole = length + burn_in
    places = whole + draw(st.integers(0, 5))
    stop = draw(st.integers(whole, 2 * places + 3))
    end_rate = draw(st.sampled_from([0.0, 0.2, 0.6]))
    data = experience(spec, stop, seeds, num_envs, end_rate, seed=draw(st.integers(0, 99)))
    sizes = {"places": places, "length": length, "burn_in": burn_in, "n_step": n_step}
    ring = make(spec, range(seeds), num_envs=num_envs, **sizes)
    add_steps(ring, data, 0, stop)
    return Case(ring, StepList(data, stop, places), num_envs)


def pick(data, *where):
    return jax.tree.map(lambda x: x[where], data)


def assert_every_window(case, data):
    """Of data `[S, starts, ...]`."""
    for s in range(2):
        for i, (_, t, e) in enumerate(case.every_start()):
            case.listed.assert_window(pick(data, s, i), s, e, t, case.whole, case.ring.n_step)


@settings(max_examples=100)
@given(cases())
def test_every_window_is_that_of_the_list(case):
    index = np.tile([i for i, _, _ in case.every_start()], (2, 1))
    batch = case.ring.gather(index)
    assert_every_window(case, batch.data)
    np.testing.assert_array_equal(batch.weight, np.ones(index.shape))
    np.testing.assert_array_equal(batch.index, index)
    window = batch.data.obs
    assert [x.dtype.name for x in (window.first, window.last)] == ["bool", "int32"]
    assert {x.dtype.name for x in (window.reward, *batch.data[1:4], batch.weight)} == {"float32"}


@settings(max_examples=50)
@given(cases())
def test_every_whole_window_is_drawn_and_none_other(case):
    index = case.ring.draw(2, 60 * len(case.every_start()), 0)
    for drawn in index:
        assert set(np.unique(drawn)) == {i for i, _, _ in case.every_start()}


def test_a_window_by_hand():
    """Episodes of two steps, the second cut, the first terminated; five steps, of which a ring of four holds the last.

    Windows of burn-in 1 and length 2, two rows folded at most: rewards 1, 2, 4, 8, 16 and gamma = 1/2.
    """
    spec = EnvSpec((1,), "float32", (-1.0,), (1.0,))
    ring = make(spec, (0,), places=4, n_step=2, length=2, burn_in=1)
    for t in range(5):
        obs, action = np.float32([[[10 * t]]]), np.float32([[[t / 10]]])
        ends = np.array([[t == 1]]), np.array([[t == 3]])
        ring.add(obs, action, Step(obs, obs + 5, np.float32([[2**t]]), *ends))
    data = ring.gather(np.array([[0, 1]])).data
    window: Window = data.obs
    np.testing.assert_array_equal(window.obs[0, 0, :, 0], [10, 20, 30, 40])
    np.testing.assert_array_equal(window.next_obs[0, 0, :, 0], [15, 25, 35, 45])
    np.testing.assert_array_equal(window.first[0, 0], [True, True, False, True])  # step 0 is stored no more
    np.testing.assert_array_equal(window.reward[0, 0], [2, 4, 8, 16])
    np.testing.assert_array_equal(data.reward[0, 0], [2, 4 + 8 / 2, 8])
    np.testing.assert_array_equal(data.discount[0, 0], [0, 0.25, 0.5])
    np.testing.assert_array_equal(window.last[0, 0], [0, 2, 2])
    np.testing.assert_array_equal(data.action[0, 0, :, 0], np.float32([0.1, 0.2, 0.3]))
    assert (window.action_before[0, 0, 0], window.reward_before[0, 0]) == (0, 0)
    np.testing.assert_array_equal(window.first[0, 1, :3], [True, False, True])  # step 1 is stored, and was an end
    np.testing.assert_array_equal(data.reward[0, 1], [4 + 8 / 2, 8, 16])  # nothing is stored after step 4
    np.testing.assert_array_equal(data.discount[0, 1], [0.25, 0.5, 0.5])
    np.testing.assert_array_equal(window.last[0, 1], [1, 1, 2])
    assert (window.action_before[0, 1, 0], window.reward_before[0, 1]) == (0, 0)


def test_what_came_before_a_window_is_told():
    data = experience(VECTORS, 6, 2, 2, 0.0)
    ring = make(num_envs=2, places=6)
    add_steps(ring, data, 0, 6)
    window = ring.gather(np.array([[3 * 2 + 1]] * 2)).data.obs
    np.testing.assert_array_equal(window.action_before[:, 0], data.action[2, :, 1])
    np.testing.assert_array_equal(window.reward_before[:, 0], data.step.reward[2, :, 1])
    assert not window.first.any()


def test_a_cut_begins_an_episode():
    data = experience(VECTORS, 6, 2, 1, 0.0)
    ring = make(places=6)
    add_steps(ring, data, 0, 3)
    ring.cut(np.array([[True], [False]]))
    add_steps(ring, data, 3, 6)
    window = ring.gather(np.array([[1]] * 2)).data.obs
    np.testing.assert_array_equal(window.first[:, 0], [[False, False, True], [False, False, False]])


@pytest.mark.parametrize("places", [5, 9])
def test_with_no_window_whole_nothing_is_drawn(places):
    ring, data = make(places=places, length=3, burn_in=2), experience(VECTORS, 5, 2, 1, 0.2)
    add_steps(ring, data, 0, 4)
    with pytest.raises(ValueError, match="holds 4 steps of each environment and no window of 5"):
        ring.draw(1, 1, 0)
    add_steps(ring, data, 4, 5)
    assert set(ring.draw(1, 20, 0).ravel()) == {0}


def test_draws_are_uniform_and_of_each_seed_alone():
    data = experience(VECTORS, 30, 2, 3, 0.2)
    ring = make(seeds=(5, 6), num_envs=3, places=20, length=2, burn_in=2)
    add_steps(ring, data, 0, 30)
    cells, draws = 17 * 3, 40_000
    for counts in (np.bincount(x.ravel(), minlength=cells) for x in ring.draw(10, draws // 10, 0)):
        statistic = ((counts - draws / cells) ** 2).sum() / (draws / cells)
        assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)
    alone = make(seeds=(6,), num_envs=3, places=20, length=2, burn_in=2)
    for t in range(30):
        alone.add(*jax.tree.map(lambda x: x[1:], data.at(t)))
    np.testing.assert_array_equal(alone.draw(2, 16, 3)[0], ring.draw(2, 16, 3)[1])


def test_windows_of_one_step_are_drawn_as_transitions_are():
    """The numbers drawn are those of the same stream: an agent without memory would learn from the same rows."""
    data = experience(VECTORS, 30, 2, 3, 0.2)
    sizes = {"num_envs": 3, "capacity": 60, "n_step": 2, "gamma": GAMMA}
    plain, ring = Ring(VECTORS, (0, 1), **sizes), SequenceRing(VECTORS, (0, 1), **sizes, length=1, burn_in=0)
    for t in range(30):
        plain.add(*data.at(t))
        ring.add(*data.at(t))
    one, other = plain.sample(2, 16, 3), ring.sample(2, 16, 3)
    np.testing.assert_array_equal(one.index, other.index)
    for name in ("action", "reward", "discount"):
        np.testing.assert_array_equal(getattr(one.data, name), getattr(other.data, name)[:, :, :, 0])
    window = other.data.obs
    last = window.last[..., None]
    np.testing.assert_array_equal(one.data.obs, window.obs[..., 0, :])
    np.testing.assert_array_equal(one.data.next_obs, np.take_along_axis(window.next_obs, last, 3)[..., 0, :])


def test_nothing_is_stored_beside_the_rows():
    sizes = {"num_envs": 2, "capacity": 1000, "n_step": 3, "gamma": GAMMA}
    plain = Ring(VECTORS, (0, 1), **sizes)
    assert SequenceRing(VECTORS, (0, 1), **sizes, length=64, burn_in=16).nbytes == plain.nbytes


def test_what_was_sampled_has_memory_of_its_own():
    data, ring = experience(VECTORS, 12, 2, 2, 0.2), make(num_envs=2, places=12)
    add_steps(ring, data, 0, 12)
    before, batch = ring.sample(2, 8, 0), ring.sample(2, 8, 0)
    for x in jax.tree.leaves(batch.data):
        x[...] = 0
    jax.tree.map(np.testing.assert_array_equal, before, ring.sample(2, 8, 0))


def unpacked(ring, index):
    way = batch_transfer(ring, raw=False)
    packed = way.pack(index)
    return packed, jax.jit(way.unpack)(packed)


@pytest.mark.parametrize("spec", [VECTORS, IMAGES], ids=["vectors", "images"])
@pytest.mark.parametrize(("n_step", "burn_in", "steps"), [(1, 0, 9), (3, 2, 9), (3, 2, 20)])
def test_on_the_device_windows_are_what_the_ring_gathers(spec, n_step, burn_in, steps):
    ring = make(spec, num_envs=2, places=11, n_step=n_step, burn_in=burn_in)
    add_steps(ring, experience(spec, steps, 2, 2, 0.3), 0, steps)
    index = ring.draw(3, 16, 0)
    packed, batch = unpacked(ring, index)
    assert len(packed) == (2 if spec is VECTORS else 4)
    expected = ring.gather(index)._replace(index=())
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype, batch, expected)
    assert jax.tree.all(same)


def test_an_empty_ring_packs_what_the_loop_compiles_with():
    _, batch = unpacked(make(num_envs=2), np.zeros((2, 3, 4), np.int64))
    assert batch.data.obs.obs.shape == (2, 3, 4, 3, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(batch))


def restored(ring, **sizes):
    """The ring of a run that was resumed."""
    again = make(**sizes)
    kept = {name: array.copy() for name, array in ring.extra_state().items()}
    again.restore(*ring.row_range, ring.rows, kept)
    return again


@pytest.mark.parametrize("steps", [7, 20])
def test_a_restored_ring_gives_the_same_windows(steps):
    sizes = {"num_envs": 2, "places": 11, "n_step": 2, "burn_in": 2}
    ring, data = make(**sizes), experience(VECTORS, steps + 4, 2, 2, 0.3)
    add_steps(ring, data, 0, steps)
    again = restored(ring, **sizes)
    jax.tree.map(np.testing.assert_array_equal, ring.sample(2, 16, 0), again.sample(2, 16, 0))
    for each in (ring, again):
        add_steps(each, data, steps, steps + 4)
    jax.tree.map(np.testing.assert_array_equal, ring.sample(2, 16, 1), again.sample(2, 16, 1))
