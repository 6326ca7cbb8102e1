"""Wrappers of our own around gymnasium's environments: what they hide, and what they draw."""

import gymnasium
import numpy as np
import pytest
from brought_envs import Brought
from gymnasium.spaces import Box

from ddpg_jax.config.load import load_config
from ddpg_jax.envs.components import COMPONENTS
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.wrappers import Wrapping, unknown_wrapper
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.testing import _check_resume

MUJOCO = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")


def made(identifier="Pendulum-v1", *names, kwargs=None, **arguments):
    wrappings = [Wrapping(names[0], arguments)] if names else []
    return make_env(identifier, None, kwargs or {}, wrappings=wrappings)


def played(env, steps, seed):
    """Observations `[steps + 1, *O]` of an episode under fixed actions."""
    rows = [env.reset(seed=seed)[0]]
    for t in range(steps):
        rows.append(env.step(np.full(env.action_space.shape, np.sin(t), np.float32))[0])
    return np.stack(rows)


@pytest.mark.parametrize("identifier", ["Pendulum-v1", "MountainCarContinuous-v0", *MUJOCO])
def test_positions_and_velocities_are_what_the_table_says(identifier):
    if identifier in MUJOCO:
        pytest.importorskip("mujoco")
    whole = played(env := made(identifier), 3, 7)
    found = COMPONENTS[identifier]
    if identifier in MUJOCO:
        parts = env.unwrapped.observation_structure
        assert found.positions == tuple(range(parts["qpos"]))
        assert found.velocities == tuple(range(parts["qpos"], parts["qpos"] + parts["qvel"]))
        data = env.unwrapped.data
        np.testing.assert_array_equal(whole[-1][list(found.positions)], data.qpos[parts["skipped_qpos"] :])
        np.testing.assert_array_equal(whole[-1][list(found.velocities)], np.clip(data.qvel, -10, 10))
    for name, hidden in (("HideVelocities", found.velocities), ("HidePositions", found.positions)):
        env = made(identifier, name)
        assert describe(env).obs_shape == env.observation_space.shape == (found.size - len(hidden),)
        kept = [i for i in range(found.size) if i not in hidden]
        np.testing.assert_array_equal(played(env, 3, 7), whole[:, kept])
        assert env.observation_space.contains(played(env, 3, 7)[-1])


@pytest.mark.parametrize(
    ("identifier", "kwargs", "name", "said"),
    [
        ("Brought-v0", {"form": "vector"}, "HidePositions", "positions of Brought-v0 are not known.*HideObservations"),
        (
            "ddpg_jax/HiddenPendulum-v0",
            {"observed": True},
            "HideVelocities",
            r"known among 3 components, .* have shape \(5,\)",
        ),
    ],
)
def test_a_task_that_is_not_in_the_table_is_refused(identifier, kwargs, name, said):
    with pytest.raises(EnvironmentFault, match=rf"number 0, '{name}', cannot be made: .*{said}"):
        made(identifier, name, kwargs=kwargs)


def test_an_environment_without_an_id_is_refused():
    with pytest.raises(EnvironmentFault, match="positions of Mine are not known"):
        make_env("m:Mine", None, {"form": "vector"}, entry=Brought, wrappings=[Wrapping("HidePositions", {})])


NOISE = [("NoisyObservations", {"sigma": 0.5}), ("DroppedObservations", {"probability": 0.25})]


@pytest.mark.parametrize(("name", "kwargs"), NOISE, ids=["noise", "drops"])
def test_what_is_drawn_depends_on_the_seed_of_the_episode_alone(name, kwargs):
    env = made("Pendulum-v1", name, **kwargs)
    one, other = played(env, 20, 3), played(env, 20, 4)
    assert (one != played(made("Pendulum-v1", name, **kwargs), 20, 4)).any()
    np.testing.assert_array_equal(other, played(made("Pendulum-v1", name, **kwargs), 20, 4))
    np.testing.assert_array_equal(one, played(env, 20, 3))  # whatever was played before
    assert one.dtype == np.float32
    assert (env.reset()[0] != env.reset()[0]).any()  # without a seed it goes on


@pytest.mark.parametrize(("name", "kwargs"), NOISE, ids=["noise", "drops"])
def test_how_much_is_disturbed(name, kwargs):
    env, plain = made("Pendulum-v1", name, **kwargs), made()
    pairs = [(played(env, 50, seed), played(plain, 50, seed)) for seed in range(40)]
    if name == "NoisyObservations":
        noise = np.concatenate([mine - theirs for mine, theirs in pairs])
        assert abs(noise.mean()) < 0.02
        assert abs(noise.std() - 0.5) < 0.02
        assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.1
    else:
        dropped = np.concatenate([(mine == 0).all(-1) for mine, _ in pairs])
        assert abs(dropped.mean() - 0.25) < 0.03
        kept = np.concatenate([(mine == theirs).all(-1) for mine, theirs in pairs])
        np.testing.assert_array_equal(kept, ~dropped)


@pytest.mark.parametrize(("name", "kwargs"), [*NOISE, ("MemoryTraces", {}), ("HideObservations", {"indices": [0]})])
def test_observations_that_are_no_vector_of_floats_are_refused(name, kwargs):
    with pytest.raises(EnvironmentFault, match="is not a Box of floats: put FlattenObservation before it"):
        made("Brought-v0", name, **kwargs)
    env = make_env("Brought-v0", None, {}, wrappings=[Wrapping("FlattenObservation", {}), Wrapping(name, kwargs)])
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_traces_of_actions_need_bounds():
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.action_space = Box(-np.inf, np.inf, (1,), np.float32)
    with pytest.raises(EnvironmentFault, match=r"has no bounds.*set actions to false"):
        make_env("m:Mine", None, {}, entry=lambda: env, wrappings=[Wrapping("MemoryTraces", {})])


def test_names_of_ours_are_known_beside_those_of_gymnasium():
    assert unknown_wrapper("MemoryTraces") is None
    assert "did you mean MemoryTraces" in unknown_wrapper("MemoryTrace")
    assert "no wrapper of this name is in gymnasium.wrappers or here" in unknown_wrapper(
        "gymnasium.wrappers.MemoryTrac"
    )


@pytest.mark.slow
@pytest.mark.parametrize("identifier", ["ddpg_jax/HiddenPendulum-v0", "jax:hidden-pendulum"])
def test_a_run_behind_them_goes_on_to_the_bit(identifier):
    """What is hidden, drawn and remembered repeats with the episodes that a resumed run plays again."""
    wrappers = [
        {"name": "HideVelocities"},
        {"name": "NoisyObservations", "kwargs": {"sigma": 0.1}},
        {"name": "DroppedObservations", "kwargs": {"probability": 0.2}},
        {"name": "MemoryTraces", "kwargs": {"rates": [0.5]}},
    ]
    short = {
        "seeds": 2,
        "total_steps": 120,
        "env": {"id": identifier, "max_episode_steps": 25, "wrappers": wrappers},
        "algorithm": {"hidden": [8], "batch_size": 8, "warmup_steps": 40},
        "replay": {"capacity": 1000},
        "evaluation": {"every": 60, "episodes": 2},
        "logging": {"every": 30, "tensorboard": False},
        "checkpoint": {"every": 30, "min_seconds": 0.0},
    }
    _check_resume(load_config(**short))
