"""Episodes made out of a back-end's functions, the probes by hand, and the names of environments written in JAX."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpg_jax as dj
from ddpg_jax.config.schema import DEVICE_BACKENDS
from ddpg_jax.envs.device import backends as catalogue
from ddpg_jax.envs.device.autoreset import episodic, select
from ddpg_jax.envs.device.backends import NATIVE, make_named_env, unknown_device_env
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.types import EnvSpec

SPEC = EnvSpec((3,), "float32", (-2.0, 0.0), (2.0, 8.0))
ACTION = jnp.array([0.5, -0.5])
IN_UNITS = [1.0, 2.0]


# Episodes


def counting(end=None, cut=None):
    """A back-end that ends, or is cut by itself, at given steps of an episode.

    It shows the draw that the episode began with, how many steps ago that was, and the first component of the last
    action in its units; the reward, an int, is 10 times the steps. Flags are plain Python where there are none.
    """

    def observed(state, component):
        return jnp.stack([state["draw"], state["age"].astype(jnp.float32), component])

    def reset(key):
        state = {"draw": jax.random.uniform(key), "age": jnp.int32(0)}
        return state, observed(state, jnp.float32(0))

    def step(state, action, key):
        state = state | {"age": state["age"] + 1}
        flags = (False if at is None else state["age"] == at for at in (end, cut))
        return state, observed(state, action[0]), 10 * state["age"], *flags

    return reset, step


@pytest.mark.parametrize(
    ("end", "cut", "limit", "length", "flags"),
    [
        (3, None, 9, 3, (True, False)),
        (None, None, 4, 4, (False, True)),
        (4, None, 4, 4, (True, True)),
        (5, None, 4, 4, (False, True)),
        (None, 2, 9, 2, (False, True)),
        (2, 2, 9, 2, (True, True)),
        (None, 5, 2, 2, (False, True)),
        (1, None, 9, 1, (True, False)),
        (None, None, 1, 1, (False, True)),
    ],
)
def test_ends_are_told_apart_and_the_next_episode_begins_in_the_same_step(end, cut, limit, length, flags):
    env = episodic(*counting(end, cut), SPEC, limit)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    episode, obs = reset(jax.random.key(0))
    draws, age = [float(obs[0])], 0
    for key in jax.random.split(jax.random.key(1), 3 * length + 1):
        episode, report = step(episode, ACTION, jax.random.clone(key))
        age += 1
        np.testing.assert_array_equal(report.next_obs, np.array([draws[-1], age, IN_UNITS[0]], np.float32))
        assert report.reward == 10 * age
        dtypes = report.reward.dtype, report.terminated.dtype, report.truncated.dtype
        assert dtypes == (jnp.float32, jnp.bool_, jnp.bool_)
        if age < length:
            assert not report.terminated
            assert not report.truncated
            np.testing.assert_array_equal(report.obs, report.next_obs)
        else:
            assert (bool(report.terminated), bool(report.truncated)) == flags
            _, reset_key = jax.random.split(key)
            np.testing.assert_array_equal(report.obs, reset(reset_key)[1])
            draws, age = [*draws, float(report.obs[0])], 0
            assert report.obs[1] == 0
        assert episode.steps == episode.state["age"] == age
    assert len(set(draws)) == len(draws) >= 4  # every episode from a draw of its own


def test_an_environment_knows_its_time_limit():
    assert episodic(*counting(), SPEC, 17).max_episode_steps == 17


def test_a_step_gets_a_key_of_its_own():
    """Neither the one given, nor the one of the reset: what ends would otherwise begin anew with the same draw."""

    def step(state, action, key):
        return state, jnp.full(3, jax.random.uniform(key)), 0.0, True, False

    env = episodic(counting()[0], step, SPEC, 9)
    episode, _ = env.reset(jax.random.key(0))
    report = env.step(episode, ACTION, jax.random.key(1))[1]
    drawn = {float(report.next_obs[0]), float(report.obs[0]), float(jax.random.uniform(jax.random.key(1)))}
    assert len(drawn) == 3


def test_a_back_end_acts_in_its_own_units():
    seen = []

    def step(state, action, key):
        seen.append(np.asarray(action))
        return state, jnp.zeros(3), 0.0, False, False

    env = episodic(counting()[0], step, SPEC, 9)
    episode, _ = env.reset(jax.random.key(0))
    for action in (ACTION, -jnp.ones(2), jnp.ones(2)):
        env.step(episode, action, jax.random.key(1))
    np.testing.assert_array_equal(seen, [IN_UNITS, SPEC.action_low, SPEC.action_high])


@pytest.mark.parametrize(("dtype", "given"), [("uint8", jnp.int32), ("float32", jnp.float16), ("float32", jnp.int32)])
def test_observations_and_flags_are_cast_to_what_is_promised(dtype, given):
    spec = SPEC._replace(obs_dtype=dtype)

    def reset(key):
        return jnp.int32(0), jnp.full(3, 200, given)

    def step(state, action, key):
        return state, jnp.full(3, 201, given), jnp.float16(0.5), jnp.float32(1), jnp.int32(0)

    env = episodic(reset, step, spec, 9)
    episode, obs = env.reset(jax.random.key(0))
    _, report = env.step(episode, ACTION, jax.random.key(0))
    assert obs.dtype == report.obs.dtype == report.next_obs.dtype == dtype
    np.testing.assert_array_equal([obs[0], report.obs[0], report.next_obs[0]], [200, 200, 201])
    assert (report.reward.dtype, report.reward) == (jnp.float32, 0.5)
    assert (report.terminated.dtype, report.truncated.dtype) == (jnp.bool_, jnp.bool_)
    assert report.terminated
    assert not report.truncated


def drawn_ends():
    """Ends where a draw of the step says so, a time limit beside it; so neighbours end at different times."""
    reset, step = counting()

    def ending(state, action, key):
        key, other = jax.random.split(key)
        state, obs, reward, _, _ = step(state, action, key)
        return state, obs, reward, jax.random.uniform(other) < 0.2, False

    return reset, ending


def test_side_by_side_in_a_loop_of_one_program_equals_a_python_loop():
    env, count, steps = episodic(*drawn_ends(), SPEC, 4), 3, 25
    keys = jax.random.split(jax.random.key(0), count)
    actions = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (steps, count, 2)), jnp.float32)

    def reset(key):
        return env.reset(jax.random.fold_in(key, 0))

    def step(episode, action, key, t):
        return env.step(episode, action, jax.random.fold_in(key, t + 1))

    @jax.jit
    def whole(keys, actions):
        episodes, _ = jax.vmap(reset)(keys)
        side_by_side = jax.vmap(step, (0, 0, 0, None))
        shapes = jax.eval_shape(side_by_side, episodes, actions[0], keys, 0)[1]

        def body(t, carry):
            episodes, rows = carry
            episodes, report = side_by_side(episodes, actions[t], keys, t)
            return episodes, jax.tree.map(lambda row, x: row.at[t].set(x), rows, report)

        rows = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, steps, body, (episodes, rows))

    episodes, rows = jax.tree.map(np.asarray, whole(jax.random.clone(keys), actions))
    one_reset, one_step = jax.jit(reset), jax.jit(step)
    for i, key in enumerate(keys):
        episode, _ = one_reset(jax.random.clone(key))
        for t in range(steps):
            episode, report = one_step(episode, actions[t, i], jax.random.clone(key), t)
            jax.tree.map(np.testing.assert_array_equal, report, jax.tree.map(lambda x, t=t, i=i: x[t, i], rows))
        jax.tree.map(np.testing.assert_array_equal, episode, jax.tree.map(lambda x, i=i: x[i], episodes))
    assert rows.terminated.any()
    assert rows.truncated.any()
    assert np.unique(rows.terminated | rows.truncated, axis=1).shape[1] == count  # not in step


def test_select_takes_whole_trees():
    one, other = {"a": jnp.arange(3), "b": (jnp.float32(1),)}, {"a": -jnp.arange(3), "b": (jnp.float32(2),)}
    for condition, expected in ((True, one), (False, other)):
        jax.tree.map(np.testing.assert_array_equal, select(jnp.asarray(condition), one, other), expected)


# The probes, by hand


def probe(name, limit=None):
    return make_named_env(f"jax:probe-{name}", limit, {})


def first_steps(name, actions, episodes=64):
    """Of many environments: the first observations `[N]`, and the reports of taking each action in turn, `[T, N]`."""
    env = probe(name)
    states, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), episodes))
    reports = []
    for t, action in enumerate(actions):
        keys = jax.random.split(jax.random.key(t + 1), episodes)
        states, report = jax.vmap(env.step, (0, None, 0))(states, jnp.array([action], jnp.float32), keys)
        reports.append(report)
    return np.asarray(obs[:, 0]), jax.tree.map(lambda *x: np.stack(x), *reports)


ACTIONS = (-1.0, -0.25, 0.5, 1.0)
FROM_HALF = np.array([2.25, 0.5625, 0.0, 0.25], np.float32)
"""(a - 0.5)² for each of them."""


@pytest.mark.parametrize("name", ["constant", "observed", "acted", "answered"])
def test_probes_of_one_step_end_with_each_step(name):
    first, reports = first_steps(name, ACTIONS)
    assert reports.terminated.all()
    assert not reports.truncated.any()
    before = np.concatenate([first[None], reports.obs[:-1, :, 0]])
    np.testing.assert_array_equal(reports.next_obs[..., 0], before)  # nothing moves
    if name in ("observed", "answered"):
        assert set(np.unique(before)) == {-1, 1}
        assert abs(before.mean()) < 0.25  # 256 draws
    else:
        assert (before == 0).all()


def test_the_rewards_of_probes_of_one_step():
    assert (first_steps("constant", ACTIONS)[1].reward == 1).all()
    reports = first_steps("observed", ACTIONS)[1]
    np.testing.assert_array_equal(reports.reward, reports.next_obs[..., 0])
    np.testing.assert_array_equal(first_steps("acted", ACTIONS)[1].reward, np.tile(-FROM_HALF[:, None], 64))
    reports = first_steps("answered", ACTIONS)[1]
    for row, obs, action in zip(reports.reward, reports.next_obs[..., 0], ACTIONS, strict=True):
        np.testing.assert_array_equal(row, np.where(obs > 0, -((action - 0.5) ** 2), -((action + 0.5) ** 2)))


def test_the_probe_of_two_steps():
    first, reports = first_steps("delayed", ACTIONS)
    assert (first == 0).all()
    for t, (reward, terminated, obs) in enumerate([(0, False, 1), (1, True, 0)] * 2):
        assert (reports.reward[t] == reward).all()
        assert (reports.terminated[t] == terminated).all()
        assert (reports.obs[t] == obs).all()
        assert (reports.next_obs[t] == 1).all()
    assert not reports.truncated.any()


# The catalogue


def test_every_name_is_made_with_its_time_limit():
    limits = {
        "pendulum": 200,
        "hidden-pendulum": 200,
        "recall": 30,
        "tmaze": 55,
        "cartpole-swingup": 1000,
        "reacher": 100,
    }
    for name in NATIVE:
        env = make_named_env(f"jax:{name}", None, {})
        assert env.max_episode_steps == limits.get(name, 10)
        assert make_named_env(f"jax:{name}", 41, {}).max_episode_steps == 41
        assert unknown_device_env(f"jax:{name}") is None
        state, obs = env.reset(jax.random.key(0))
        assert obs.shape == env.spec.obs_shape
        report = env.step(state, jnp.zeros(env.spec.action_size), jax.random.key(1))[1]
        assert report.next_obs.shape == env.spec.obs_shape


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("jax:pendulm", "did you mean jax:pendulum?"),
        ("jax:probe-acter", "did you mean jax:probe-acted?"),
        ("jax:qqq", "there are pendulum, probe-constant"),
        ("jax:", "there are pendulum, probe-constant"),
        ("jax:Pendulum-v1", "did you mean jax:pendulum?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(identifier, message):
    with pytest.raises(ConfigError, match=r"env\.id=") as error:
        make_named_env(identifier, None, {})
    assert repr(identifier) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("prefix", "package"), [("gymnax", "gymnax"), ("brax", "brax"), ("playground", "mujoco_playground")]
)
def test_a_back_end_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch, prefix, package):
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: asked.append(name))
    message = f'needs {package}, which is not installed: pip install "ddpg-jax[{prefix}]"'
    assert unknown_device_env(f"{prefix}:whatever") == message
    with pytest.raises(ConfigError) as error:
        make_named_env(f"{prefix}:whatever", None, {})
    assert message in str(error.value)
    assert asked == [package] * 2
    assert unknown_device_env("jax:pendulum") is None  # ours needs nothing


def test_what_a_constructor_refuses_is_an_environment_fault():
    with pytest.raises(EnvironmentFault, match=r"env\.id='jax:pendulum' cannot be made: .*gravity") as error:
        make_named_env("jax:pendulum", None, {"gravity": 3})
    assert isinstance(error.value.__cause__, TypeError)


LOOPS = {"Pendulum-v1": "host", "jax:pendulum": "device", "brax:ant": "device", "phys2d:pendulum": "device"}


@pytest.mark.parametrize(("identifier", "native"), [*LOOPS.items(), ("my_module:Thing-v0", "host"), ("jax", "host")])
def test_the_loop_is_chosen_by_the_environment(identifier, native):
    for loop in ("auto", native):
        assert dj.load_config(loop=loop, env={"id": identifier}).on_device == (native == "device")
    other = {"host": "device", "device": "host"}[native]
    with pytest.raises(ConfigError) as error:
        dj.load_config(loop=other, env={"id": identifier})
    message = str(error.value)
    assert f"loop = '{other}' (arguments): cannot run env.id={identifier!r}" in message
    assert f'set loop to "{native}"' in message
    assert ("jax:pendulum" in message) == (identifier in ("Pendulum-v1", "jax:pendulum"))


def test_a_constructor_may_refuse_in_its_own_words(monkeypatch):
    def make(error, *_):
        raise error

    for error in (ConfigError("of the back-end"), EnvironmentFault("of the back-end")):
        monkeypatch.setitem(catalogue.BACKENDS, "jax", catalogue.Backend(partial(make, error), None, None))
        with pytest.raises(type(error), match=r"^of the back-end$"):
            make_named_env("jax:pendulum", None, {})


def test_the_configuration_knows_the_back_ends_of_the_catalogue():
    assert tuple(catalogue.BACKENDS) == DEVICE_BACKENDS
