"""The sum tree of the device against that of the host, and against running sums."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from ddpg_jax.replay.device import sum_tree as device_tree
from ddpg_jax.replay.device.sum_tree import FAN_OUT
from ddpg_jax.replay.host.sum_tree import SumTree

WHOLE = st.integers(0, 9).map(float)
"""Sums of them are exact."""

WRITTEN, FILLED = 6, 3


@cache
def compiled(slots):
    """`set_slots`, `fill` of three slots, and draws, for trees of one size."""
    return (
        jax.jit(device_tree.set_slots),
        jax.jit(partial(device_tree.fill, count=min(FILLED, slots))),
        jax.jit(partial(device_tree.draw, shape=(50,))),
    )


def assert_sums(tree):
    """Each node is the sum of its children."""
    for above, below in pairwise(tree):
        sums = np.asarray(below).reshape(-1, FAN_OUT).sum(1)
        np.testing.assert_allclose(np.asarray(above)[: len(sums)], sums, rtol=1e-6)
        assert not np.asarray(above)[len(sums) :].any()


@pytest.mark.parametrize("slots", [1, 2, FAN_OUT, FAN_OUT + 1, 40, FAN_OUT**2, FAN_OUT**2 + 1, 700])
def test_the_same_writes_give_the_priorities_of_the_host(slots):
    @settings(max_examples=30)
    @given(st.data())
    def prove(data):
        set_slots, fill, draw = compiled(slots)
        ours, theirs, count = device_tree.empty(slots), SumTree(1, slots, top=2), min(FILLED, slots)
        for _ in range(data.draw(st.integers(1, 4))):
            where = data.draw(arrays(np.int32, WRITTEN, elements=st.integers(0, slots - 1)))
            values = data.draw(arrays(np.float32, WRITTEN, elements=WHOLE))
            ours = set_slots(ours, where, values)
            theirs.set(where[None], values[None])
            start, value = data.draw(st.integers(0, slots - count)), data.draw(WHOLE)
            ours = fill(ours, jnp.int32(start), value=jnp.float32(value))
            theirs.fill(start, start + count, np.array([value]))
        every = np.arange(slots)
        np.testing.assert_array_equal(device_tree.get(ours, every), theirs.get(every[None])[0])
        assert_sums(ours)
        assert np.asarray(ours[0]).sum() == theirs.total[0]
        if theirs.total[0]:
            drawn = draw(ours, jax.random.key(data.draw(st.integers(0, 99))))
            assert np.asarray(device_tree.get(ours, drawn)).all()

    prove()


@pytest.mark.parametrize("slots", [FAN_OUT - 1, 5 * FAN_OUT, 5000])
def test_draws_are_in_proportion(slots):
    rng, draws = np.random.default_rng(0), 400_000
    values = (rng.pareto(1.5, slots) + 0.1).astype(np.float32)
    values[rng.random(slots) < 0.2] = 0
    tree = device_tree.set_slots(device_tree.empty(slots), jnp.arange(slots), jnp.asarray(values))
    drawn = jax.jit(partial(device_tree.draw, shape=(draws,)))(tree, jax.random.key(5))
    counts, expected = np.bincount(drawn, minlength=slots), draws * values / values.sum(dtype=float)
    assert len(counts) == slots
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.ppf(1e-4, len(counts) - 1) < statistic < chi2.ppf(1 - 1e-4, len(counts) - 1)


@pytest.mark.slow
def test_a_million_slots_are_all_drawn_alike():
    """One float32 tells 8.4 million places apart; that many equal slots would be drawn unequally by a single number."""
    slots, draws = 10**6, 500_000
    tree = device_tree.fill(device_tree.empty(slots), jnp.int32(0), slots, jnp.float32(0.1))
    drawn = np.asarray(jax.jit(partial(device_tree.draw, shape=(draws,)))(tree, jax.random.key(0)))
    for group in (drawn // 1000, drawn % 1000):
        counts = np.bincount(group, minlength=1000)
        statistic = ((counts - draws / 1000) ** 2 / (draws / 1000)).sum()
        assert chi2.ppf(1e-4, 999) < statistic < chi2.ppf(1 - 1e-4, 999)
    assert drawn.max() < slots


def test_sizes_that_differ_by_many_orders_lead_to_no_empty_slot():
    rng = np.random.default_rng(0)
    values = (10.0 ** rng.uniform(-30, 30, 3000) * (rng.random(3000) < 0.3)).astype(np.float32)
    tree = device_tree.set_slots(device_tree.empty(3000), jnp.arange(3000), jnp.asarray(values))
    drawn = jax.jit(partial(device_tree.draw, shape=(100_000,)))(tree, jax.random.key(1))
    assert values[np.asarray(drawn)].all()


def test_a_random_number_of_zero_leads_to_no_empty_slot():
    key, shape = jax.random.key(2468), (4096,)
    assert (jax.random.uniform(jax.random.clone(key), (1, *shape)) == 0).any()
    tree = device_tree.set_slots(device_tree.empty(FAN_OUT), jnp.array([5]), jnp.ones(1))
    assert (np.asarray(device_tree.draw(tree, key, shape)) == 5).all()


def test_nothing_drifts():
    def body(i, tree):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), i), 2)
        slots = jax.random.randint(keys[0], (8,), 0, 300)
        values = jax.random.uniform(keys[1], (8,)) * 10.0 ** ((i % 8).astype(jnp.float32) - 4)
        return device_tree.set_slots(tree, slots, values)

    tree = jax.jit(lambda tree: jax.lax.fori_loop(0, 3000, body, tree))(device_tree.empty(300))
    assert_sums(tree)
    np.testing.assert_allclose(np.asarray(tree[0]).sum(), np.asarray(tree[-1]).sum(dtype=float), rtol=1e-6)


def test_seeds_beside_each_other_are_each_as_alone():
    rng, seeds = np.random.default_rng(0), 3
    where = jnp.asarray(rng.integers(0, 500, (seeds, 64)), jnp.int32)
    values = jnp.asarray(rng.exponential(size=(seeds, 64)), jnp.float32)

    def keys():
        return jax.random.split(jax.random.key(0), seeds)

    def used(where, values, key):
        tree = device_tree.fill(device_tree.empty(500), jnp.int32(490), 10, values[0])
        tree = device_tree.set_slots(tree, where, values)
        return tree, device_tree.draw(tree, key, (100,))

    together = jax.jit(jax.vmap(used))(where, values, keys())
    for s in range(seeds):
        alone = jax.jit(used)(where[s], values[s], keys()[s])
        jax.tree.map(lambda a, b, s=s: np.testing.assert_array_equal(a[s], b), together, alone)


def test_memory_is_that_of_the_slots_and_a_fifteenth():
    for slots in (10**5, 2**17 + 1, 10**6):
        nodes = sum(leaf.size for leaf in jax.eval_shape(partial(device_tree.empty, slots)))
        assert slots <= nodes < slots * FAN_OUT / (FAN_OUT - 1) + 100


def test_a_scaled_tree_has_the_sums_of_what_is_multiplied():
    """A ring of 40,000 slots, whose third level has 2500 nodes of 16; the padding stays empty."""
    slots = jnp.arange(40_000)
    values = np.random.default_rng(0).exponential(size=40_000).astype(np.float32)
    tree = device_tree.set_slots(device_tree.empty(40_000), slots, jnp.asarray(values))
    level = device_tree.coarse_level(tree)
    first = np.asarray(device_tree.first_slots(tree, level))
    assert first[1] == 16
    factors = np.random.default_rng(1).random(len(first)).astype(np.float32)
    scaled = device_tree.scale(tree, level, jnp.asarray(factors))
    assert [x.shape for x in scaled] == [x.shape for x in tree]
    np.testing.assert_allclose(scaled[0].sum(), (values * np.repeat(factors, 16)[:40_000]).sum(), rtol=1e-5)
    np.testing.assert_array_equal(scaled[-1], tree[-1])
    assert device_tree.coarse_level(device_tree.empty(30)) == 1
