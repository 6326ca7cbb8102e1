"""The ring of the host loop against a deque for each seed."""

import re
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.host import ring as ring_module
from ddpg_jax.replay.host.ring import Ring, row_dtype
from ddpg_jax.types import EnvSpec, Step
from ddpg_jax.xla.memory import human_bytes

SPEC = EnvSpec((3,), "float32", (-1.0, -2.0), (1.0, 3.0))
IMAGES = EnvSpec((4, 2, 3), "uint8", (-1.0,), (1.0,))
HALF_CHEETAH = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)


def _step(rng, shape, spec=SPEC, ends=None):
    """`(obs, action, step)` of all lanes, every number different; rewards are whole, so that sums are exact."""
    if spec.obs_dtype == "uint8":
        obs, next_obs = rng.integers(0, 256, (2, *shape, *spec.obs_shape), np.uint8)
    else:
        obs, next_obs = rng.normal(size=(2, *shape, *spec.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (*shape, spec.action_size)).astype(np.float32)
    reward = rng.integers(-8, 9, shape).astype(np.float32)
    terminated, truncated = np.zeros((2, *shape), bool) if ends is None else ends
    # what is acted on next is never stored: the replay must not take it for the successor
    return obs, action, Step(np.full_like(obs, 99), next_obs, reward, terminated, truncated)


def _filled(seeds=(0,), num_envs=2, steps=5, *, capacity=100, n_step=1, gamma=0.5, spec=SPEC, data_seed=0):
    ring = Ring(spec, seeds, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)
    rng = np.random.default_rng(data_seed)
    for _ in range(steps):
        ring.add(*_step(rng, (len(seeds), num_envs), spec))
    return ring


def _fold(rows, n_step, gamma):
    """One transition from the rows of a lane that follow each other, by the definition."""
    reward, discount = 0.0, 1.0
    for row in rows[:n_step]:
        reward, discount, last = reward + discount * row["reward"], discount * gamma, row
        if row["terminated"] or row["truncated"]:
            break
    return rows[0]["obs"], rows[0]["action"], reward, 0.0 if last["terminated"] else discount, last["next_obs"]


@settings(max_examples=300)
@given(st.data())
def test_every_transition_is_that_of_a_deque_for_each_seed(data):
    num_seeds, num_envs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    capacity, n_step = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    gamma = data.draw(st.sampled_from([0.0, 0.5, 0.75, 1.0]))  # powers and sums are exact in float32
    ends = data.draw(arrays(bool, (data.draw(st.integers(1, 20)), 2, num_seeds, num_envs)))
    ring = Ring(SPEC, range(num_seeds), num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)
    model = [deque(maxlen=-(-capacity // num_envs)) for _ in range(num_seeds)]
    rng = np.random.default_rng(0)
    for flags in ends:
        obs, action, step = _step(rng, (num_seeds, num_envs), ends=flags)
        ring.add(obs, action, step)
        for s, steps in enumerate(model):
            fields = {"obs": obs, "action": action} | step._asdict() | {"obs": obs}
            steps.append([{name: x[s, e].copy() for name, x in fields.items()} for e in range(num_envs)])

    assert len(ring) == len(model[0]) * num_envs
    index = np.tile(np.arange(len(ring)), (num_seeds, 1))
    batch = ring.gather(index)
    for s, steps in enumerate(model):
        for i in range(len(ring)):
            age, env = divmod(i, num_envs)
            expected = _fold([lanes[env] for lanes in list(steps)[age:]], n_step, gamma)
            for name, value in zip(("obs", "action", "reward", "discount", "next_obs"), expected, strict=True):
                np.testing.assert_array_equal(getattr(batch.data, name)[s, i], value, err_msg=f"{name} of {i}")
    np.testing.assert_array_equal(batch.weight, np.ones(index.shape))
    np.testing.assert_array_equal(batch.index, index)
    assert {x.dtype.name for x in (*batch.data[:5], batch.weight)} == {"float32"}


def test_gather_takes_indices_of_any_shape():
    ring = _filled((0, 1), num_envs=2, steps=6, n_step=3)
    flat = np.random.default_rng(1).integers(0, len(ring), (2, 24))
    one, other = ring.gather(flat), ring.gather(flat.reshape(2, 3, 4, 2))
    for a, b in zip(one.data[:5], other.data[:5], strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)
    assert other.data.obs.shape == (2, 3, 4, 2, 3)
    assert other.weight.shape == other.index.shape == (2, 3, 4, 2)


def test_a_time_limit_keeps_the_discount_and_a_termination_does_not():
    ring = Ring(SPEC, [0], num_envs=4, capacity=4, n_step=1, gamma=0.5)
    ends = np.array([[[0, 1, 0, 1]], [[0, 0, 1, 1]]], bool)
    obs, action, step = _step(np.random.default_rng(0), (1, 4), ends=ends)
    ring.add(obs, action, step)
    data = ring.gather(np.arange(4)[None]).data
    np.testing.assert_array_equal(data.discount, [[0.5, 0, 0.5, 0]])  # none, terminated, truncated, both
    np.testing.assert_array_equal(data.next_obs, step.next_obs)


@pytest.mark.parametrize("n_step", [1, 3])
def test_what_was_sampled_has_memory_of_its_own(n_step):
    ring = _filled((0, 1), capacity=10, n_step=n_step)
    before, batch = ring.sample(4, 8, 0), ring.sample(4, 8, 0)
    for x in (*batch.data[:5], batch.weight):
        x[...] = 77
    for a, b in zip(before.data[:5], ring.sample(4, 8, 0).data[:5], strict=True):
        np.testing.assert_array_equal(a, b)  # the ring did not see it
    kept = [x.copy() for x in before.data[:5]]
    for _ in range(10):
        ring.add(*_step(np.random.default_rng(9), (2, 2)))
    for a, b in zip(kept, before.data[:5], strict=True):
        np.testing.assert_array_equal(a, b)  # nor did the batch see what came later


def test_what_is_added_is_copied():
    ring = Ring(SPEC, [0], num_envs=1, capacity=3, n_step=1, gamma=0.5)
    obs, action, step = _step(np.random.default_rng(0), (1, 1))
    ring.add(obs, action, step)
    kept = [x.copy() for x in (obs, action, step.next_obs)]
    for x in (obs, action, step.next_obs, step.reward, step.terminated):
        x[...] = 1
    data = ring.gather(np.zeros((1, 1), int)).data
    for a, b in zip(kept, (data.obs, data.action, data.next_obs), strict=True):
        np.testing.assert_array_equal(a, b[:, :1])
    assert data.discount.item() == 0.5


def test_a_sample_is_what_gather_gives_at_its_indices():
    ring = _filled((3, 4), num_envs=3, steps=9, capacity=12, n_step=2)
    batch = ring.sample(5, 7, 2)
    assert batch.data.obs.shape == (2, 5, 7, 3)
    assert batch.index.min() >= 0
    assert batch.index.max() < len(ring) == 12
    for a, b in zip(batch.data[:5], ring.gather(batch.index).data[:5], strict=True):
        np.testing.assert_array_equal(a, b)


def _drawn(ring, call, updates=3, batch_size=16):
    return ring.sample(updates, batch_size, call).index


def test_draws_depend_on_call_seed_and_length_alone():
    ring = _filled((5, 6), steps=10)
    first = [_drawn(ring, call) for call in (0, 1, 2, 2**40, 2**64)]
    again = [_drawn(ring, call) for call in (2**64, 2**40, 2, 1, 0)]  # the order of the calls has no influence
    for a, b in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({x.tobytes() for x in first}) == 5
    assert not np.array_equal(first[0][0], first[0][1])  # seeds
    assert not np.array_equal(first[0][0, 0], first[0][0, 1])  # updates of a call
    other_data = _filled((5, 6), steps=27, capacity=20, data_seed=8)  # as long, but wrapped, with other numbers in it
    np.testing.assert_array_equal(_drawn(other_data, 2), first[2])


def test_draws_of_a_seed_do_not_depend_on_its_neighbours():
    alone, among, elsewhere = _filled((7,)), _filled((2, 7, 9)), _filled((7, 2))
    np.testing.assert_array_equal(_drawn(alone, 4)[0], _drawn(among, 4)[1])
    np.testing.assert_array_equal(_drawn(alone, 4)[0], _drawn(elsewhere, 4)[0])
    assert not np.array_equal(_drawn(alone, 4)[0], _drawn(_filled((8,)), 4)[0])


@pytest.mark.parametrize("calls", [1, 400], ids=["in one call", "over many calls"])
def test_draws_are_uniform(calls):
    ring = _filled((0, 1), num_envs=3, steps=20)
    cells, draws = len(ring), 40_000
    index = np.concatenate([_drawn(ring, call, 10, draws // calls // 10) for call in range(calls)], 1)
    for counts in (np.bincount(x.ravel(), minlength=cells) for x in index):
        assert counts.sum() == draws
        statistic = ((counts - draws / cells) ** 2).sum() / (draws / cells)
        assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)


def test_an_empty_ring_refuses_to_be_sampled():
    ring = Ring(SPEC, [0], num_envs=1, capacity=3, n_step=1, gamma=0.5)
    with pytest.raises(ValueError, match="add"):
        ring.sample(1, 1, 0)
    assert len(ring) == 0


def test_images_stay_bytes():
    ring = Ring(IMAGES, [0], num_envs=2, capacity=6, n_step=2, gamma=0.5)
    rng = np.random.default_rng(0)
    steps = [_step(rng, (1, 2), IMAGES) for _ in range(3)]
    for step in steps:
        ring.add(*step)
    data = ring.gather(np.arange(6)[None]).data
    assert data.obs.dtype == data.next_obs.dtype == np.uint8
    np.testing.assert_array_equal(data.obs[0], np.concatenate([obs[0] for obs, _, _ in steps]))
    ends = [steps[1][2], steps[2][2], steps[2][2]]  # two rows are folded, but there is only one of the last step
    np.testing.assert_array_equal(data.next_obs[0], np.concatenate([step.next_obs[0] for step in ends]))
    assert row_dtype(IMAGES).itemsize < 2 * 24 + 16  # one byte a pixel


def test_a_million_transitions_of_half_cheetah_take_at_most_180_mb():
    assert row_dtype(HALF_CHEETAH).itemsize * 10**6 <= 180e6
    small = Ring(HALF_CHEETAH, [0, 1], num_envs=4, capacity=1000, n_step=1, gamma=0.99)
    assert small.nbytes == 2 * 1000 * row_dtype(HALF_CHEETAH).itemsize  # and nothing beside the rows


def _refusal(monkeypatch, free, seeds, num_envs, capacity):
    monkeypatch.setattr(ring_module, "available_bytes", lambda: free)
    with pytest.raises(ConfigError, match=r"replay\.capacity") as error:
        Ring(SPEC, range(seeds), num_envs=num_envs, capacity=capacity, n_step=1, gamma=0.99)
    return str(error.value)


def test_a_ring_beyond_free_memory_is_refused_before_it_is_allocated(monkeypatch):
    message = _refusal(monkeypatch, 3_210_000_000, 2, 4, 2**60)  # no machine could allocate it
    assert human_bytes(2**60 * 2 * row_dtype(SPEC).itemsize) in message
    assert "3.2 GB" in message
    assert str(2**60) in message


@pytest.mark.parametrize("num_envs", [1, 3, 4, 7])
@pytest.mark.parametrize("free", [1999, 2000, 4444, 10_001])
def test_the_capacity_named_as_the_largest_fits_and_one_more_step_does_not(monkeypatch, num_envs, free):
    message = _refusal(monkeypatch, free, 2, num_envs, 10**9)
    largest = int(re.search(r"largest that fits is (\d+)", message)[1])
    ring = Ring(SPEC, range(2), num_envs=num_envs, capacity=largest, n_step=1, gamma=0.99)
    assert 0 < ring.nbytes <= free
    assert f"largest that fits is {largest}" in _refusal(monkeypatch, free, 2, num_envs, largest + num_envs)


def test_a_ring_that_just_fits_is_made(monkeypatch):
    size = row_dtype(SPEC).itemsize * 12
    monkeypatch.setattr(ring_module, "available_bytes", lambda: size)
    assert Ring(SPEC, [0], num_envs=4, capacity=12, n_step=1, gamma=0.99).nbytes == size
    _refusal(monkeypatch, size - 1, 1, 4, 12)
