"""DDPG and TD3 of stable-baselines3 and SBX at the settings of a configuration, evaluated on our bank of episodes.

What a setting means was read in their sources (stable-baselines3 2.9, sbx-rl 0.28) and is the same here: one rate of
Adam for actor and critic (SBX has two, both are given), tau and gamma, one update after each environment step from
`learning_starts` on, uniform actions before it, Gaussian noise in units of half the action range, target noise and its
clip in the same units, time limits bootstrapped, hidden layers of actor and critic alike, ReLU, and tanh at the end.

What is theirs and has no setting:

* both add the exploration noise to the uniform actions of the warm-up too, and clip the sum;
* SBX initialises by LeCun's normal with zero biases (ours and stable-baselines3: uniform within 1/sqrt(fan in));
* SBX's targets follow after every critic step, before the actor's, whatever `policy_delay` (ours and
  stable-baselines3: after each step of the actor); its TD3 actor ascends the lower critic (ours: the first).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.envs.host.vector import evaluation_seeds

MODULES = {"sb3": "stable_baselines3", "sbx": "sbx"}
PACKAGES = {"sb3": "stable-baselines3", "sbx": "sbx-rl"}


def check_settings(config: Config) -> None:
    """Asserts that the configuration asks for nothing that the peers do not have."""
    algorithm, exploration = config.algorithm, config.exploration
    assert algorithm.name in ("ddpg", "td3"), "peers have DDPG and TD3"
    assert exploration.kind == "gaussian", "peers are compared under Gaussian noise"
    assert (exploration.schedule, exploration.epsilon) == ("constant", None), "peers know no such settings"
    assert algorithm.actor_learning_rate == algorithm.critic_learning_rate, "stable-baselines3 has one learning rate"
    plain = (algorithm.n_step, algorithm.updates_per_step, algorithm.action_layer, config.env.num_envs) == (1, 1, 0, 1)
    unset = (algorithm.learning_starts, algorithm.max_grad_norm, algorithm.final_scale, config.env.max_episode_steps)
    assert plain, "peers know no such settings"
    assert unset == (None,) * 4, "peers know no such settings"
    assert not config.env.kwargs, "peers are given none"
    assert config.replay.kind == "uniform", "peers draw uniformly"
    assert (algorithm.weight_decay, algorithm.activation, algorithm.initializer) == ("none", "relu", "fan_in")
    assert config.precision == "float32", "peers compute in float32"
    if algorithm.name == "td3":
        joined = algorithm.bootstrap, algorithm.ascend, algorithm.target_subset
        assert joined == ("min", "first", None), "peers know no such settings"


def make_peer(name: str, config: Config, env: gymnasium.Env[Any, Any], seed: int) -> Any:
    """A peer's learner at the settings of the configuration."""
    from stable_baselines3.common.noise import NormalActionNoise

    check_settings(config)
    algorithm, size = config.algorithm, env.action_space.shape[0]
    rate = algorithm.critic_learning_rate
    own: dict[str, Any] = {"qf_learning_rate": rate} if name == "sbx" else {}
    networks: dict[str, Any] = {"net_arch": list(algorithm.hidden)}
    if algorithm.name == "td3":
        own |= {
            "policy_delay": algorithm.policy_delay,
            "target_policy_noise": algorithm.target_noise,
            "target_noise_clip": algorithm.target_noise_clip,
        }
        networks["n_critics"] = algorithm.num_critics
    make: Callable[..., Any] = getattr(importlib.import_module(MODULES[name]), algorithm.name.upper())
    return make(
        "MlpPolicy",
        env,
        policy_kwargs=networks,
        learning_rate=rate,
        batch_size=algorithm.batch_size,
        buffer_size=config.replay.capacity,
        learning_starts=algorithm.warmup_steps,
        tau=algorithm.tau,
        gamma=algorithm.gamma,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(size), config.exploration.sigma * np.ones(size)),
        seed=seed,
        device="cpu",
        **own,
    )


def train_peer(name: str, config: Config, seed: int) -> list[dict[str, Any]]:
    """Trains one seed of a peer; returns its evaluations, `{"step", "returns"}` of each."""
    from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps

    evaluations: list[dict[str, Any]] = []
    bank = evaluation_seeds(config.evaluation.episodes)

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            env = gymnasium.make(config.env.id)
            returns = [_episode(env, self.model, bank(j, 0)) for j in range(config.evaluation.episodes)]
            evaluations.append({"step": self.num_timesteps, "returns": returns})
            print(f"  {name} seed {seed} step {self.num_timesteps}: {np.mean(returns):.1f}", flush=True)
            return True

    model = make_peer(name, config, gymnasium.make(config.env.id), seed)
    every = config.evaluation.every or config.total_steps
    model.learn(config.total_steps, callback=EveryNTimesteps(every, Evaluate()))
    return evaluations


def _episode(env: gymnasium.Env[Any, Any], model: Any, seed: int) -> float:
    """The return of one episode of a peer's greedy policy."""
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
        total, done = total + float(reward), terminated or truncated
    return total
