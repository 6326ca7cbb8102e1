"""Five probes, each of which needs one more part of a learner to be right, solved by every algorithm in both loops."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import merge
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import device_env
from ddpg_jax.envs.host.vector import VectorEnv, training_seeds
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.compile import compile_program, lane_mesh
from ddpg_jax.training.device.loop import device_loop
from ddpg_jax.training.host.loop import host_loop

pytestmark = pytest.mark.slow

STEPS, GAMMA, SEEDS = 3000, 0.8, 3
SUPPORT = {"v_min": -3.0, "v_max": 2.0, "num_atoms": 26}
EMBEDDINGS = {"input_width": 16, "embedding_size": 8, "encoder_hidden": [16]}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ddpg": {"name": "ddpg"},
    "td3": {"name": "td3"},
    "d4pg": {"name": "d4pg", **SUPPORT},
    "fasttd3": {"name": "fasttd3", "critic_hidden": [32], **SUPPORT},
    "flash": {
        "name": "fasttd3",
        "architecture": "flash",
        "critic_hidden": [32],
        "joint_batch": True,
        "batch_size": 64,
        "learning_rate_schedule": "cosine",
        "normalize_observations": False,
        "weight_decay": "none",
        "critic_weight_decay": 0.0,
        "actor_weight_decay": 0.0,
        **SUPPORT,
    },
    "td7": {"name": "td7", **EMBEDDINGS, "target_every": 50, "tau": 1.0, "encoder_learning_rate": 3e-3},
    "mrq": {
        "name": "mrq",
        "critic_hidden": [32],
        "embedding_size": 8,
        "encoder_hidden": [16],
        "action_embedding": 8,
        "target_every": 50,
        "tau": 1.0,
        "encoder_learning_rate": 3e-3,
    },
}


class Probe(gymnasium.Env):
    """A probe in NumPy: as those of `ddpg_jax.envs.device.probes`, by name."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, name: str) -> None:
        self.name = name

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        signed = self.name in ("observed", "answered")
        self.obs = np.float32(self.np_random.choice([-1, 1]) if signed else 0)
        return np.array([self.obs]), {}

    def step(self, action: Any) -> tuple[Any, ...]:
        reward = {
            "constant": 1.0,
            "observed": self.obs,
            "delayed": self.obs,
            "acted": -((action[0] - 0.5) ** 2),
            "answered": -((action[0] - 0.5 * self.obs) ** 2),
        }[self.name]
        terminated = self.name != "delayed" or bool(self.obs > 0)
        self.obs = np.float32(1) if self.name == "delayed" else self.obs
        return np.array([self.obs]), float(reward), terminated, False, {}


def configured(name: str, algorithm: str) -> Config:
    settings = {
        "hidden": [32],
        "batch_size": 32,
        "warmup_steps": 200,
        "gamma": GAMMA,
        "tau": 0.05,
        "actor_learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
    }
    return dj.load_config(
        seeds=SEEDS,
        total_steps=STEPS,
        env={"id": f"jax:probe-{name}"},
        algorithm=merge(settings, ALGORITHMS[algorithm]),
        exploration={"sigma": 0.3},
        replay={"capacity": STEPS},
        evaluation={"every": 0},
        logging={"every": STEPS},
    )


def on_device(config: Config, name: str) -> Any:
    env, keys = device_env(config), run_keys(config.seed_list)
    compiled = compile_program(config, env, keys, {}, lane_mesh(SEEDS, 1, jax.devices()[:1]))
    (chunk,) = device_loop(config, compiled, keys, {})
    return chunk.learner


def on_host(config: Config, name: str) -> Any:
    lanes = VectorEnv(partial(Probe, name), (SEEDS, 1), training_seeds(config.seed_list, 1))
    agent = make_agent(config, lanes.spec)
    *_, last = host_loop(config, agent, lanes, make_ring(config, lanes.spec))
    return last.state


@cache
def solved(loop: Callable[..., Any], name: str, algorithm: str) -> tuple[Any, Any]:
    """The agent, and the state of three seeds after training on a probe."""
    config = configured(name, algorithm)
    return make_agent(config, device_env(config).spec), loop(config, name)


def asked(what: str, learned: tuple[Any, Any], obs: float) -> np.ndarray:
    """The value or the action `[S]` at an observation."""
    agent, state = learned
    return np.asarray(jax.vmap(getattr(agent, what), (0, None))(state, jnp.full(1, obs))).reshape(SEEDS)


NOTHING_IN_A_BATCH = ("acted", "flash")
"""All observations of that probe are one, and a normalised batch of them is 0 throughout."""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("loop", [on_device, on_host])
@pytest.mark.parametrize(
    ("name", "what", "expected"),
    [
        ("constant", "value", {0: 1}),
        ("observed", "value", {-1: -1, 1: 1}),
        ("delayed", "value", {0: GAMMA, 1: 1}),
        ("acted", "policy", {0: 0.5}),
        ("answered", "policy", {-1: -0.5, 1: 0.5}),
    ],
)
def test_a_probe_is_solved(loop, algorithm, name, what, expected):
    if (name, algorithm) == NOTHING_IN_A_BATCH:
        pytest.skip("batch normalisation leaves nothing of what is always the same")
    learned = solved(loop, name, algorithm)
    for obs, answer in expected.items():
        np.testing.assert_allclose(asked(what, learned, obs), answer, atol=0.1)
