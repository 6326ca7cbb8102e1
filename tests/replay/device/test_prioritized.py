"""The prioritised replay of the device against that of the host."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.prioritized import prioritized
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.types import EnvSpec, Step

SPEC = EnvSpec((3,), "float32", (-1.0, -2.0), (1.0, 3.0))
GAMMA = 0.9
RULE = Prioritization(alpha=0.7, beta=0.4, beta_end=1.0, epsilon=1e-3, updates=100)


def experience(rng, *lead):
    """`(obs, action, Step)`, leaves `[*lead, ...]`, every number different and no row an end."""
    obs, next_obs = rng.normal(size=(2, *lead, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (*lead, 2)).astype(np.float32)
    return obs, action, Step(obs, next_obs, rng.normal(size=lead).astype(np.float32), *np.zeros((2, *lead), bool))


class Filled:
    """A replay of one seed beside the ring of the host, to which the same is done."""

    def __init__(self, num_envs, capacity, steps, *, n_step=1, rule=RULE):
        sizes = {"num_envs": num_envs, "capacity": capacity, "n_step": n_step, "gamma": GAMMA, "rule": rule}
        self.replay, self.ring = prioritized(SPEC, **sizes), PrioritizedRing(SPEC, [0], **sizes)
        self.num_envs, self.steps = num_envs, replays.ring_steps(capacity, num_envs)
        self.store, self.position = self.replay.init(), replays.start()
        self.rng = np.random.default_rng(0)
        self._add, self._write = jax.jit(self.replay.add), jax.jit(self.replay.write_back)
        self.add(steps)

    def add(self, steps):
        for _ in range(steps):
            row = experience(self.rng, self.num_envs)
            self.store = self._add(self.store, self.position, *row)
            self.position = replays.advance(self.position, self.steps)
            self.ring.add(*jax.tree.map(lambda x: x[None], row))

    def write_back(self, rows, errors):
        """Of rows by their number since the beginning, `[U, B]`."""
        self.store = self._write(self.store, jnp.asarray(rows % self.slots, jnp.int32), jnp.asarray(errors))
        self.ring.write_back(rows[None], errors[None])

    def sample(self, seed, updates, batch_size, step=0):
        sample = jax.jit(self.replay.sample, static_argnums=(4, 5))
        batch = sample(self.store, self.position, jax.random.key(seed), jnp.int32(step), updates, batch_size)
        return jax.tree.map(np.asarray, batch)

    @property
    def slots(self):
        return self.steps * self.num_envs

    def row_numbers(self, index):
        """Of places in the ring."""
        return (index - self.ring.oldest) % self.slots + self.ring.oldest

    def assert_equal_priorities(self):
        every = np.arange(self.slots)
        theirs = self.ring.tree.get(every[None])[0]
        np.testing.assert_allclose(self.store.tree[-1][: self.slots], theirs, rtol=1e-5)


@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 20), (3, 20), (40, 100)])
def test_the_same_writes_give_the_priorities_of_the_host(num_envs, capacity):
    """New rows at the largest so far, errors of rows drawn twice, and several times round the ring."""
    both = Filled(num_envs, capacity, 1)
    for _ in range(30):
        rows = both.rng.integers(both.ring.oldest, both.ring.oldest + len(both.ring), (2, 8))
        both.write_back(rows, both.rng.exponential(size=(2, 8)).astype(np.float32))
        both.assert_equal_priorities()
        both.add(int(both.rng.integers(1, 3)))
        both.assert_equal_priorities()
    assert both.store.largest > 2


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("num_envs", "steps"), [(1, 13), (3, 4), (3, 13)])
def test_a_sample_is_what_the_host_gathers_and_weighs(num_envs, steps, n_step):
    both = Filled(num_envs, 8 * num_envs, steps, n_step=n_step)
    rows = np.arange(both.ring.oldest, both.ring.oldest + len(both.ring))[None]
    both.write_back(rows, both.rng.exponential(size=rows.shape).astype(np.float32))
    batch = both.sample(1, 3, 16, step=50)
    both.ring._beta = 0.7
    expected = both.ring.gather(both.row_numbers(batch.index)[None])
    for ours, theirs in zip((*batch.data[:5], batch.weight), (*expected.data[:5], expected.weight), strict=True):
        np.testing.assert_allclose(ours, theirs[0], rtol=1e-5, atol=1e-6)
    assert batch.weight.dtype == np.float32
    assert (batch.weight.max(1) == 1).all()
    assert batch.weight.min() < 0.9


@pytest.mark.parametrize(("num_envs", "steps"), [(1, 50), (3, 31)])
def test_draws_are_in_proportion_to_the_priorities(num_envs, steps):
    both, draws = Filled(num_envs, 20 * num_envs, steps), 60_000
    rows = np.arange(both.ring.oldest, both.ring.oldest + len(both.ring))
    errors = (both.rng.pareto(1.5, rows.shape) + 0.05).astype(np.float32)
    both.write_back(rows[None], errors[None])
    drawn = both.row_numbers(both.sample(0, 60, draws // 60).index)
    counts = np.bincount(drawn.ravel() - both.ring.oldest, minlength=len(rows))
    expected = draws * (errors + 1e-3) ** 0.7 / ((errors + 1e-3) ** 0.7).sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.ppf(1e-4, len(rows) - 1) < statistic < chi2.ppf(1 - 1e-4, len(rows) - 1)


@pytest.mark.parametrize("traced", [False, True])
def test_without_alpha_draws_are_uniform_and_weights_exactly_one(traced):
    rule = RULE._replace(alpha=jnp.float32(0) if traced else 0.0)
    both, draws = Filled(3, 60, 27, rule=rule), 40_000
    rows = np.arange(both.ring.oldest, both.ring.oldest + 60)
    both.write_back(rows[None], both.rng.exponential(size=(1, 60)).astype(np.float32))
    batch = both.sample(0, 100, draws // 100)
    assert (batch.weight == 1).all()
    counts = np.bincount(batch.index.ravel(), minlength=60)
    statistic = ((counts - draws / 60) ** 2 / (draws / 60)).sum()
    assert chi2.ppf(1e-4, 59) < statistic < chi2.ppf(1 - 1e-4, 59)


def test_a_part_that_is_not_filled_is_never_drawn():
    both = Filled(3, 3000, 7)
    assert both.sample(0, 100, 100).index.max() < 21


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_errors_that_are_not_finite_break_nothing(bad):
    both = Filled(1, 20, 20)
    both.write_back(np.array([[3, 4]]), np.float32([[bad, 1.0]]))
    batch = both.sample(0, 10, 100)
    assert ((batch.index >= 0) & (batch.index < 20)).all()
    assert np.isfinite(batch.weight).all()


def test_errors_of_zero_and_the_smallest_epsilon_leave_a_row_that_can_be_drawn():
    both = Filled(1, 4, 4, rule=RULE._replace(epsilon=1e-300, alpha=1.0))
    both.write_back(np.array([[0, 1, 2, 3]]), np.zeros((1, 4), np.float32))
    assert set(both.sample(0, 10, 100).index.ravel()) == {0, 1, 2, 3}


def compiled(capacity, lanes=2, num_envs=2, updates=1, batch_size=16):
    """Adding, drawing and writing back in a loop of its own, for seeds side by side, from shapes alone."""
    replay = prioritized(SPEC, num_envs=num_envs, capacity=capacity, n_step=1, gamma=GAMMA, rule=RULE)
    row = jax.tree.map(jnp.asarray, experience(np.random.default_rng(0), num_envs))

    def body(i, carry, key):
        (store, position), weights = carry
        store = replay.add(store, position, *row)
        position = replays.advance(position, replays.ring_steps(capacity, num_envs))
        batch = replay.sample(store, position, jax.random.fold_in(key, i), i, updates, batch_size)
        store = replay.write_back(store, batch.index, batch.data.reward)  # which does not wait for the weights
        return (store, position), weights + batch.weight.sum()

    def loop(store, position, key, count):
        (store, _), weights = jax.lax.fori_loop(0, count, partial(body, key=key), ((store, position), jnp.zeros(())))
        return store, weights

    stores = jax.eval_shape(lambda: jax.vmap(lambda _: replay.init())(jnp.arange(lanes)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), lanes))
    over_lanes = jax.vmap(loop, (0, None, 0, None))
    return jax.jit(over_lanes, donate_argnums=0).lower(stores, jax.eval_shape(replays.start), keys, 100).compile()


def test_the_tree_is_written_where_it_is():
    """Neither the loop nor the call keeps a second tree: what is needed beside does not grow with the capacity."""
    small, large = (compiled(capacity).memory_analysis() for capacity in (10**4, 10**6))
    assert large.alias_size_in_bytes >= 2 * 10**6 * 4 * (1 + 11)
    assert large.temp_size_in_bytes < small.temp_size_in_bytes + 10_000


def test_seeds_beside_each_other_are_each_as_alone():
    both = Filled(2, 30, 20)
    errors, rows = np.random.default_rng(1).exponential(size=(3, 1, 8)).astype(np.float32), jnp.arange(8)[None]
    sample = partial(both.replay.sample, updates=2, batch_size=8)

    def used(td_error, key):
        return sample(both.replay.write_back(both.store, rows, td_error), both.position, key, jnp.int32(3))

    def keys():
        return jax.random.split(jax.random.key(0), 3)

    together = jax.jit(jax.vmap(used))(errors, keys())
    for s in range(3):
        alone = jax.jit(used)(errors[s], keys()[s])
        np.testing.assert_array_equal(together.index[s], alone.index)
        np.testing.assert_allclose(together.weight[s], alone.weight, rtol=1e-6)


def test_priorities_fade_with_age_as_on_the_host():
    """Rows of two environments, 6, 4, 2 and 0 transitions old; the ring has gone round."""
    both = Filled(2, 8, 9, rule=RULE._replace(fade=0.8, fade_floor=0.3))
    index = both.sample(0, 1, 100_000).index.reshape(-1)
    drawn = np.bincount(index, minlength=both.replay.init().tree[-1].shape[0])
    assert drawn[8:].sum() == 0
    expected = np.maximum(0.8 ** np.array([0, 0, 6, 6, 4, 4, 2, 2]), 0.3)  # the ninth step took the first place
    expected *= drawn.sum() / expected.sum()
    assert ((drawn[:8] - expected) ** 2 / expected).sum() < chi2(7).ppf(0.999)
