"""Randomness is a counter: numbers depend on (seed, name, step) and on nothing else."""

from itertools import pairwise, product

import jax
import numpy as np

from ddpg_jax.rng import HostStream, derive_seed, run_keys, stream_id, stream_key

SEEDS = (0, 1, 2**32 - 1)
NAMES = ("critic", "actor", "explore", "replay")
STEPS = (0, 1, 2, 1000, 2**31)


def _draw(seed, name, step):
    return HostStream(seed, name).at(step).integers(2**62, size=3).tobytes()


def test_device_streams_differ_by_seed_name_and_step():
    keys = [stream_key(key, name, step) for key, name, step in product(run_keys(SEEDS), NAMES, STEPS)]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(SEEDS) * len(NAMES) * len(STEPS)
    assert all(jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) for key in keys)


def test_run_keys_use_every_bit_of_the_seed():
    """The configuration takes seeds up to 2**63; jax.random.key alone would drop the upper half of them."""
    seeds = [low + high for low in (0, 7, 2**31) for high in (0, 2**32, 2**40, 2**62)]
    keys = run_keys(seeds)
    assert keys.shape == (len(seeds),)
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(seeds)


def test_the_key_of_a_seed_does_not_depend_on_the_others():
    alone, among = run_keys([7]), run_keys([3, 7, 2**40])
    np.testing.assert_array_equal(jax.random.key_data(alone[0]), jax.random.key_data(among[1]))


def test_device_streams_are_the_same_when_the_step_is_traced():
    traced = jax.jit(lambda key, step: jax.random.key_data(stream_key(key, "critic", step)))
    np.testing.assert_array_equal(
        traced(run_keys([3])[0], np.int32(17)),
        jax.random.key_data(stream_key(run_keys([3])[0], "critic", 17)),
    )


def test_numbers_of_names_and_seeds_never_change():
    """A run is resumed by other processes and versions, so these values are for ever."""
    assert (stream_id("explore"), stream_id("critic")) == (1223399770, 3387095025)
    assert derive_seed(3, "env", 1) == 2189028877
    assert HostStream(3, "replay").at(5).integers(10**6, size=3).tolist() == [588783, 821886, 931697]


def test_host_streams_differ_by_seed_name_and_step():
    steps = (0, 1, 2, 2**32 - 1, 2**32, 2**32 + 1, 2**53, 2**64, 2**64 + 1)
    seeds = (0, 1, 2**32, 2**32 + 1, 2**63 - 1)
    drawn = [_draw(*which) for which in product(seeds, NAMES, steps)]
    assert len(set(drawn)) == len(drawn)


def test_host_streams_do_not_depend_on_the_order_of_calls():
    steps = [0, 5, 1, 2**32, 5, 3]
    stream, expected = HostStream(1, "replay"), {step: _draw(1, "replay", step) for step in steps}
    for step in (*steps, *reversed(steps)):
        generator = stream.at(step)
        assert generator.integers(2**62, size=3).tobytes() == expected[step]
        generator.integers(10, size=5, dtype=np.int32)  # leaves half a word and part of a block behind
        generator.normal(size=3)


def test_neighbouring_steps_of_a_host_stream_share_no_number():
    drawn = [HostStream(0, "replay").at(step).integers(2**63, size=1000) for step in range(4)]
    assert len(np.unique(np.concatenate(drawn))) == 4000


def test_derived_seeds_of_adjacent_words_differ():
    words = [*product((0, 1, 2), ("episode", "evaluation"), (0, 1, 2), range(50)), *product(NAMES, (1, 2))]
    seeds = [derive_seed(*each) for each in words]
    assert len(set(seeds)) == len(words)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert min(abs(a - b) for a, b in pairwise(seeds)) > 1000
