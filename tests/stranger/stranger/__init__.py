"""Every part that a stranger may bring: environments of both kinds, an algorithm, networks, a logger, a callback."""

from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import ddpg_jax as dj
from ddpg_jax.agents import factory, networks
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.slots import CriticHead
from ddpg_jax.agents.targets import polyak
from ddpg_jax.types import Params


class Point(gymnasium.Env):
    """A point on a line that shall come to a goal, 20 steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal=0.3):
        self._goal = goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = self.np_random.uniform(-1, 1), 0
        return np.array([self._x], np.float32), {}

    def step(self, action):
        self._x, self._steps = np.clip(self._x + 0.1 * float(action[0]), -1, 1), self._steps + 1
        return np.array([self._x], np.float32), -((self._x - self._goal) ** 2), False, self._steps == 20, {}


def device_point(goal=0.3, max_episode_steps=20):
    """The same in JAX."""

    def reset(key):
        x = jax.random.uniform(key, minval=-1.0)
        return x, x[None]

    def step(x, action, key):
        x = jnp.clip(x + 0.1 * action[0], -1, 1)
        return x, x[None], -jnp.square(x - goal), False

    return dj.make_device_env(reset, step, action_low=[-1.0], action_high=[1.0], max_episode_steps=max_episode_steps)


def quantiles(config, spec, *, atoms=5):
    """DDPG with a critic that predicts quantiles of the return."""
    levels = (jnp.arange(atoms, dtype=float) + 0.5) / atoms

    def target(reward, discount, next_outputs, key):
        return reward + discount * next_outputs[0]

    def loss(outputs, y):
        error = y[None, :] - outputs[0][:, None]
        weight = jnp.where(error < 0, 1 - levels[:, None], levels[:, None])
        return (weight * jnp.abs(error)).mean(1).sum(), jnp.abs(y.mean() - outputs.mean())

    actor, critic = factory.make_networks(config, spec, outputs=atoms)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=CriticHead(target, loss, jnp.mean),
        exploration=factory.make_exploration(config, spec),
        optimizers=factory.make_optimizers(config),
        normalizer=factory.make_normalizer(config, spec),
        update_targets=polyak(config.algorithm.tau),
        max_rejected=config.algorithm.max_rejected,
    )


def linear(config, spec, outputs):
    """Actor and critic without hidden layers: two weights each, and what the package needs to know of them."""
    (size,), action_size = spec.obs_shape, spec.action_size

    def actor_init(key):
        return {"w": 0.1 * jax.random.normal(key, (size, action_size))}

    def actor(params, obs):
        return jnp.tanh(obs @ params["w"])

    def critic_init(key):
        return {"w": 0.1 * jax.random.normal(key, (size + action_size, outputs)), "b": jnp.zeros(outputs)}

    def critic(params, obs, action):
        return jnp.concatenate([obs, action]) @ params["w"] + params["b"]

    return networks.stateless(actor_init, actor), networks.stateless(critic_init, critic)


class Counts:
    """A logger that counts the rows it is told, in a file."""

    def __init__(self):
        self._rows, self._path = 0, None

    def on_start(self, start):
        self._path = Path(start.directory) / "counts.txt"

    def write(self, rows):
        self._rows += len(rows)

    def sync(self):
        return 0

    def close(self):
        self._path.write_text(str(self._rows))


def norm(report):
    """A callback: the norm of each seed's actor."""
    leaves = jax.tree.leaves(report.state.params.actor)
    squares = sum(jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1) for leaf in leaves)
    return {"actor_norm": np.sqrt(np.asarray(squares, np.float64))[: len(report.config.seed_list)]}
