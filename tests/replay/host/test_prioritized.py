"""The prioritised ring of the host: what is drawn, how it is weighted, and what comes back."""

import numpy as np
import pytest
from scipy.stats import chi2

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.host import ring as ring_module
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.host.sum_tree import BYTES_PER_SLOT
from ddpg_jax.types import EnvSpec, Step

SPEC = EnvSpec((3,), "float32", (-1.0, -2.0), (1.0, 3.0))


def add(ring, seeds, num_envs, steps, rng=None):
    """Adds steps of which every number is different; no episode ends."""
    rng = rng or np.random.default_rng(0)
    for _ in range(steps):
        obs, next_obs = rng.normal(size=(2, seeds, num_envs, 3)).astype(np.float32)
        action = rng.uniform(-1, 1, (seeds, num_envs, 2)).astype(np.float32)
        reward, ends = rng.normal(size=(seeds, num_envs)).astype(np.float32), np.zeros((2, seeds, num_envs), bool)
        ring.add(obs, action, Step(obs, next_obs, reward, *ends))


def make(seeds=(0,), num_envs=1, steps=8, *, capacity=100, n_step=1, **priorities):
    rule = Prioritization(**{"alpha": 1.0, "beta": 1.0, "beta_end": 1.0, "epsilon": 1e-12, "updates": 100} | priorities)
    ring = PrioritizedRing(SPEC, seeds, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=0.5, rule=rule)
    add(ring, len(seeds), num_envs, steps)
    return ring


def index_of(*numbers):
    """Rows as one batch of one update of one seed, `[1, 1, B]`."""
    return np.array([[numbers]])


def priorities(ring, *numbers):
    return ring.tree.get(np.array([numbers]) % ring._slots)[0]


def test_priorities_by_hand():
    ring = make(alpha=0.5, epsilon=0.25)
    ring.write_back(index_of(0, 3, 5), np.float32([[[2.0, -0.75, 0.0]]]))
    np.testing.assert_allclose(priorities(ring, *range(8)), [1.5, 1, 1, 1, 1, 0.5, 1, 1], rtol=1e-12)


def test_weights_by_hand():
    """Priorities 4, 1, 1, 2: N·P is 2, 1/2, 1/2, 1, and its inverse over the largest of the batch is the weight."""
    ring = make(steps=4)
    ring.write_back(index_of(0, 3), np.float32([[[4.0, 2.0]]]))
    for beta, expected in ((1.0, [0.25, 1, 1, 0.5]), (0.5, [0.5, 1, 1, 0.5**0.5]), (0.0, [1, 1, 1, 1])):
        ring._beta = beta
        np.testing.assert_allclose(ring.weights(index_of(0, 1, 2, 3))[0, 0], expected, rtol=1e-6)
    ring._beta = 1.0
    np.testing.assert_allclose(ring.weights(index_of(0, 3))[0, 0], [0.5, 1])  # the largest of the batch, not of all
    both = np.array([[[0, 3], [1, 0]]])
    np.testing.assert_allclose(ring.weights(both)[0], [[0.5, 1], [1, 0.25]])  # of each update's batch
    assert ring.weights(both).dtype == np.float32


def test_weights_are_those_of_the_definition():
    ring, rng = make((0, 1), num_envs=2, steps=30, beta=0.7, beta_end=0.7), np.random.default_rng(3)
    ring.write_back(np.tile(np.arange(60), (2, 1)).reshape(2, 1, 60), rng.exponential(size=(2, 1, 60)))
    batch = ring.sample(3, 16, 0)
    probability = ring.tree.get(batch.index.reshape(2, -1)).reshape(batch.index.shape) / ring.tree.total[:, None, None]
    weight = (len(ring) * probability) ** -0.7
    np.testing.assert_allclose(batch.weight, weight / weight.max(-1, keepdims=True), rtol=1e-5)
    assert batch.weight.max(-1).min() == 1


def test_beta_grows_to_its_end_with_the_updates():
    ring = make(beta=0.4, beta_end=1.0, updates=50)
    for call, expected in ((0, 0.4), (5, 0.52), (15, 0.76), (25, 1.0), (40, 1.0)):
        ring.draw(2, 4, call)
        assert ring._beta == pytest.approx(expected)


def test_new_rows_get_the_largest_priority_so_far():
    ring = make((0, 1), num_envs=2, steps=2)
    errors = np.float32([[[0.5, 7.0]], [[0.25, 0.125]]])
    ring.write_back(np.array([[[0, 1]], [[0, 1]]]), errors)
    add(ring, 2, 2, 1)
    np.testing.assert_allclose(ring.tree.get(np.array([[4, 5]] * 2)), [[7, 7], [1, 1]], rtol=1e-6)
    ring.write_back(np.array([[[1]], [[1]]]), np.float32([[[0.5]], [[0.5]]]))
    add(ring, 2, 2, 1)
    np.testing.assert_allclose(ring.tree.get(np.array([[6, 7]] * 2)), [[7, 7], [1, 1]], rtol=1e-6)  # ever, not now


def test_errors_of_rows_that_are_gone_are_dropped():
    ring = make(steps=4, capacity=4)
    index = index_of(0, 1, 2, 3)
    add(ring, 1, 1, 2)
    ring.write_back(index, np.float32([[[50, 60, 7, 8]]]))
    np.testing.assert_allclose(priorities(ring, 2, 3, 4, 5), [7, 8, 1, 1])
    assert ring.tree.total == pytest.approx(17)
    add(ring, 1, 1, 1)
    assert priorities(ring, 6) == pytest.approx(8)  # nor do they count as the largest
    ring.write_back(index, np.float32([[[9, 9, 9, 9]]]))
    np.testing.assert_allclose(priorities(ring, 3, 4, 5, 6), [9, 1, 1, 8])


def test_of_several_errors_of_one_row_the_largest_counts_in_any_order():
    for order in ([2, 0.5, 3], [3, 2, 0.5], [0.5, 3, 2]):
        ring = make()
        ring.write_back(index_of(4, 4, 4), np.float32([[order]]))
        assert priorities(ring, 4) == pytest.approx(3)
        ring.write_back(index_of(4), np.float32([[[0.25]]]))
        assert priorities(ring, 4) == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_errors_that_are_not_finite_break_nothing(bad):
    ring = make((0, 1))
    ring.write_back(np.array([[[0, 1]], [[0, 1]]]), np.float32([[[bad, 2]], [[3, 4]]]))
    index = ring.draw(2, 50, 0)
    assert ((index >= 0) & (index < 8)).all()
    assert np.isfinite(ring.weights(index)).all()
    np.testing.assert_array_equal(index[1], _second_alone().draw(2, 50, 0)[0])


def _second_alone():
    ring = make((1,))
    ring.write_back(index_of(0, 1), np.float32([[[3, 4]]]))
    return ring


@pytest.mark.parametrize(("num_envs", "steps", "capacity"), [(1, 50, 50), (3, 20, 60), (3, 31, 60)])
def test_draws_are_in_proportion_to_the_priorities(num_envs, steps, capacity):
    """Also once the ring has gone round."""
    ring, rng, draws = make((0, 1), num_envs, steps, capacity=capacity, alpha=0.7), np.random.default_rng(1), 60_000
    rows = np.tile(np.arange(ring.oldest, ring.oldest + len(ring)), (2, 1))
    errors = rng.pareto(1.5, rows.shape) + 0.05
    ring.write_back(rows[:, None], errors[:, None].astype(np.float32))
    for s, index in enumerate(ring.draw(60, draws // 60, 0)):
        counts = np.bincount(index.ravel() - ring.oldest, minlength=len(ring))
        expected = draws * errors[s] ** 0.7 / (errors[s] ** 0.7).sum()
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert chi2.ppf(1e-4, len(ring) - 1) < statistic < chi2.ppf(1 - 1e-4, len(ring) - 1)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_row_keeps_its_number_and_is_that_of_the_uniform_ring(num_envs, n_step):
    ring = make((0, 1), num_envs, 0, capacity=7, n_step=n_step)
    plain = Ring(SPEC, (0, 1), num_envs=num_envs, capacity=7, n_step=n_step, gamma=0.5)
    for rings in (ring, plain):
        add(rings, 2, num_envs, 11)
    assert ring.oldest == (11 - len(plain) // num_envs) * num_envs
    ages = np.tile(np.arange(len(plain)), (2, 1))
    ours, theirs = ring.gather(ages + ring.oldest), plain.gather(ages)
    for a, b in zip(ours.data[:5], theirs.data[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ring.words(ages + ring.oldest), plain.words(ages))


@pytest.mark.parametrize("num_envs", [1, 3])
def test_without_priorities_it_is_uniform_replay_number_by_number(num_envs):
    ring = make((4, 5), num_envs, 33, alpha=0.0, beta=0.4)
    plain = Ring(SPEC, (4, 5), num_envs=num_envs, capacity=100, n_step=1, gamma=0.5)
    add(plain, 2, num_envs, 33)
    rng = np.random.default_rng(0)
    for call in range(20):
        ours, theirs = ring.sample(3, 64, call), plain.sample(3, 64, call)
        np.testing.assert_array_equal(ours.index, theirs.index, strict=True)
        np.testing.assert_array_equal(ours.weight, theirs.weight, strict=True)
        for a, b in zip(ours.data[:5], theirs.data[:5], strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        ring.write_back(ours.index, rng.normal(size=ours.index.shape).astype(np.float32))


def test_draws_of_a_seed_do_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    errors = {seed: rng.exponential(size=(1, 10)).astype(np.float32) for seed in (2, 7, 9)}
    drawn = {}
    for seeds in ((7,), (2, 7, 9)):
        ring = make(seeds, steps=10)
        ring.write_back(np.tile(np.arange(10), (len(seeds), 1, 1)), np.stack([errors[s] for s in seeds]))
        drawn[seeds] = ring.draw(3, 16, 4)[seeds.index(7)]
    np.testing.assert_array_equal(*drawn.values())


def test_an_empty_ring_refuses_to_be_sampled():
    with pytest.raises(ValueError, match="add"):
        make(steps=0).sample(1, 1, 0)


def test_the_tree_counts_as_memory(monkeypatch):
    plain = Ring(SPEC, [0], num_envs=1, capacity=10**5, n_step=1, gamma=0.5).nbytes
    ring = make(steps=0, capacity=10**5)
    assert 0 <= ring.nbytes - plain - 10**5 * BYTES_PER_SLOT < 20_000
    monkeypatch.setattr(ring_module, "available_bytes", lambda: plain + 10**5 * BYTES_PER_SLOT - 1)
    with pytest.raises(ConfigError, match=r"replay\.capacity=100000 needs"):
        make(steps=0, capacity=10**5)


def test_priorities_fade_with_age():
    """Rows 0 to 7 of two environments are 6, 4, 2 and 0 transitions old; the ring has gone round."""
    ring = make(num_envs=2, steps=9, capacity=8, fade=0.8, fade_floor=0.3)
    assert ring.oldest == 10
    drawn = np.bincount(ring.draw(1, 200_000, 0).reshape(-1) - 10, minlength=8)
    expected = np.maximum(0.8 ** np.array([6, 6, 4, 4, 2, 2, 0, 0]), 0.3)
    expected *= drawn.sum() / expected.sum()
    assert ((drawn - expected) ** 2 / expected).sum() < chi2(7).ppf(0.999)
