"""Modes of jax and options of XLA: those that change no run, and those that are told of."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

import ddpg_jax as dj
from ddpg_jax.runs.result import system_differences, system_info
from ddpg_jax.xla.modes import in_numeric_modes, numeric_flags


@contextmanager
def other_modes():
    with jax.enable_x64(True), jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        yield


def results_of(path, identifier):
    """The record of a tiny run, what it is evaluated to, and an action of its policy."""
    config = tiny_config(env={"id": identifier}, logging={"tensorboard": False})
    run = dj.train(config, path, quiet=True)
    action = dj.load_policy(path, seed=0)(np.ones((1, 3), np.float32))
    return (run.directory / "metrics.jsonl").read_bytes(), dj.evaluate(path, episodes=2).tolist(), action.tolist()


@pytest.mark.parametrize("identifier", ["Pendulum-v1", pytest.param("jax:pendulum", marks=pytest.mark.slow)])
def test_modes_of_jax_change_no_run(identifier, tmp_path):
    plain = results_of(tmp_path / "plain", identifier)
    with other_modes():
        assert results_of(tmp_path / "other", identifier) == plain


def test_under_the_modes_numbers_are_float32_and_keys_threefry():
    @in_numeric_modes
    def look():
        return jnp.zeros(()).dtype.name, str(jax.random.key(0).dtype)

    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        assert look() == ("float32", "key<fry>")
        assert jnp.zeros(()).dtype == "float64"


def test_options_of_xla_that_may_change_numbers_are_told_of(monkeypatch):
    before = system_info()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_cpu_enable_fast_math=true")
    assert numeric_flags() == "--xla_cpu_enable_fast_math=true"
    (line,) = system_differences(before)
    assert "other settings than before" in line
    assert line.endswith("-> --xla_cpu_enable_fast_math=true")
    assert system_differences({name: x for name, x in before.items() if name != "settings"}) == []
