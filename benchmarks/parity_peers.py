"""What other codes make of the inputs of `parity`: stable-baselines3, TorchRL, Tianshou, and torch in float64.

Each function takes initial weights by our names and the batches, and returns weights and targets by our names. The
codes' own losses and steps are called; only where their random numbers come from is replaced, by the noise of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from parity import ACTION, ALGORITHM, OBS, SMOOTHED, UPDATES, part
from parity_float64 import Leaves, in_float64
from torch import nn

RATE, TAU, GAMMA = ALGORITHM["critic_learning_rate"], ALGORITHM["tau"], ALGORITHM["gamma"]


def update_peers(arrays: Leaves) -> Leaves:
    """What all of them make of the file, by `peer/case/code/name`."""
    torch.set_num_threads(1)
    data = {name: torch.tensor(x) for name, x in part(arrays, "data").items()}
    found: Leaves = {}
    for case, peers in PEERS.items():
        for name, update in peers.items():
            made = update(case, part(arrays, f"init/{case}"), data)
            found |= {f"peer/{case}/{name}/{leaf}": x.astype(np.float32) for leaf, x in made.items()}
    return found


@contextmanager
def given_noise(*names: str) -> Iterator[list[torch.Tensor]]:
    """Torch's normal numbers come from a list, which is used up from its beginning."""
    noise: list[torch.Tensor] = []
    originals = {name: getattr(torch.Tensor if name == "normal_" else torch, name) for name in names}

    def fill(tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
        return tensor.copy_(mean + std * noise.pop(0))

    def make(tensor: torch.Tensor) -> torch.Tensor:
        return noise.pop(0).clone()

    try:
        for name in names:
            setattr(torch.Tensor if name == "normal_" else torch, name, fill if name == "normal_" else make)
        yield noise
    finally:
        for name, original in originals.items():
            setattr(torch.Tensor if name == "normal_" else torch, name, original)


def linears(module: nn.Module) -> list[nn.Linear]:
    """The dense layers of a module, in order."""
    return [each for each in module.modules() if isinstance(each, nn.Linear)]


def put(module: nn.Module, leaves: Leaves, network: str, m: int | None = None) -> None:
    """Gives a module the weights of the actor, or of critic number m."""
    for i, layer in enumerate(linears(module)):
        pick = ... if m is None else m
        kernel, bias = (leaves[f"params/{network}/params/Dense_{i}/{name}"][pick] for name in ("kernel", "bias"))
        layer.weight.data, layer.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias.copy())


def take(root: str, actor: nn.Module, critics: list[nn.Module]) -> Leaves:
    """The weights of modules by our names."""
    found: Leaves = {}
    for i, layer in enumerate(linears(actor)):
        found[f"{root}/actor/params/Dense_{i}/kernel"] = layer.weight.detach().numpy().T
        found[f"{root}/actor/params/Dense_{i}/bias"] = layer.bias.detach().numpy()
    for i, layers in enumerate(zip(*map(linears, critics), strict=True)):
        name = f"{root}/critic/params/Dense_{i}"
        found[f"{name}/kernel"] = np.stack([layer.weight.detach().numpy().T for layer in layers])
        found[f"{name}/bias"] = np.stack([layer.bias.detach().numpy() for layer in layers])
    return found


def stable_baselines3(case: str, init: Leaves, data: dict[str, torch.Tensor]) -> Leaves:
    """Its `train`, on a replay that hands out the batches."""
    import gymnasium
    from stable_baselines3 import DDPG, TD3
    from stable_baselines3.common.logger import Logger

    env = gymnasium.Env()
    env.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,))
    env.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,))
    hidden = len(init["params/actor/params/Dense_0/bias"])
    settings: dict[str, Any] = {"learning_rate": RATE, "tau": TAU, "gamma": GAMMA, "device": "cpu", "buffer_size": 8}
    if case == "td3":
        noise = {"target_policy_noise": SMOOTHED["target_noise"], "target_noise_clip": SMOOTHED["target_noise_clip"]}
        settings |= {"policy_delay": SMOOTHED["policy_delay"], **noise}
    model = (TD3 if case == "td3" else DDPG)("MlpPolicy", env, policy_kwargs={"net_arch": [hidden] * 2}, **settings)
    for root in ("", "_target"):
        put(getattr(model, f"actor{root}"), init, "actor")
        for m, critic in enumerate(getattr(model, f"critic{root}").q_networks):
            put(critic, init, "critic", m)
    model.set_logger(Logger(None, []))
    numbers = iter(range(UPDATES))

    def sample(size: int, env: Any = None) -> SimpleNamespace:
        u = next(numbers)
        given = {"observations": "obs", "actions": "action", "next_observations": "next_obs"}
        batch = {theirs: data[ours][u] for theirs, ours in given.items()}
        column = {"rewards": data["reward"][u][:, None], "dones": data["terminated"][u][:, None], "discounts": None}
        return SimpleNamespace(**batch, **column)

    model.replay_buffer = SimpleNamespace(sample=sample)  # pyright: ignore[reportAttributeAccessIssue]
    with given_noise("normal_") as noise:
        noise += list(data["noise"]) if case == "td3" else [0.0 * each for each in data["noise"]]
        model.train(UPDATES, len(data["reward"][0]))
    return take("params", model.actor, list(model.critic.q_networks)) | take(
        "target_params", model.actor_target, list(model.critic_target.q_networks)
    )


def mlp(sizes: list[int], last: nn.Module | None = None) -> nn.Sequential:
    """Dense layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([last] if last is not None else []))


class Joined(nn.Module):
    """A critic of observation and action."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = mlp([OBS + ACTION, hidden, hidden, 1])

    def forward(self, obs: torch.Tensor, act: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Q, `[B, 1]`."""
        return self.net(torch.cat([torch.as_tensor(obs), torch.as_tensor(act)], -1))


def torchrl(case: str, init: Leaves, data: dict[str, torch.Tensor]) -> Leaves:
    """Its losses, by torch's Adam, and its soft update of the targets."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.objectives import DDPGLoss, SoftUpdate, TD3Loss, ValueEstimators

    hidden = len(init["params/actor/params/Dense_0/bias"])
    body = mlp([OBS, hidden, hidden, ACTION], nn.Tanh())
    heads = [Joined(hidden) for _ in range(2 if case == "td3" else 1)]
    put(body, init, "actor")
    for m, head in enumerate(heads):
        put(head, init, "critic", m)
    actor = TensorDictModule(body, ["observation"], ["action"])
    critics = [TensorDictModule(head, ["observation", "action"], ["state_action_value"]) for head in heads]
    if case == "td3":
        noise = {"policy_noise": SMOOTHED["target_noise"], "noise_clip": SMOOTHED["target_noise_clip"]}
        loss: Any = TD3Loss(actor, critics, bounds=(-1.0, 1.0), loss_function="l2", **noise)
        of_critic, of_actor, critic_params = loss.value_loss, loss.actor_loss, loss.qvalue_network_params
    else:
        loss = DDPGLoss(actor, critics[0], loss_function="l2", delay_actor=True, delay_value=True)
        of_critic, of_actor, critic_params = loss.loss_value, loss.loss_actor, loss.value_network_params
    loss.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    follow = SoftUpdate(loss, tau=TAU)
    learned = critic_params, loss.actor_network_params
    adams = [torch.optim.Adam(list(params.flatten_keys().values()), RATE) for params in learned]
    delay = SMOOTHED["policy_delay"] if case == "td3" else 1
    with given_noise("randn_like") as noise:
        noise += list(data["noise"])
        for u in range(UPDATES):
            ended = data["terminated"][u][:, None] > 0
            following = {"observation": data["next_obs"][u], "reward": data["reward"][u][:, None], "done": ended}
            batch = {"observation": data["obs"][u], "action": data["action"][u]}
            batch["next"] = TensorDict({**following, "terminated": ended}, [len(ended)])
            given = TensorDict(batch, [len(ended)])
            for adam, compute in ((adams[0], of_critic), (adams[1], of_actor))[: 2 if u % delay == delay - 1 else 1]:
                adam.zero_grad()
                compute(given.clone())[0].backward()
                adam.step()
            if u % delay == delay - 1:
                follow.step()
    found: Leaves = {}
    for root, prefix in (("params", ""), ("target_params", "target_")):
        name = "qvalue_network_params" if case == "td3" else "value_network_params"
        of_critics, of_actor_now = getattr(loss, f"{prefix}{name}"), getattr(loss, f"{prefix}actor_network_params")
        for i in range(3):
            for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
                x = of_actor_now["module", str(2 * i), theirs].detach().numpy()
                found[f"{root}/actor/params/Dense_{i}/{ours}"] = x.T if x.ndim == 2 else x
                x = of_critics["module", "net", str(2 * i), theirs].detach().numpy()
                x = x if case == "td3" else x[None]
                found[f"{root}/critic/params/Dense_{i}/{ours}"] = x.swapaxes(1, 2) if x.ndim == 3 else x
    return found


def tianshou(case: str, init: Leaves, data: dict[str, torch.Tensor]) -> Leaves:
    """Its `_update_with_batch`, with the returns that its own target networks give."""
    import gymnasium
    from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch

    hidden = len(init["params/actor/params/Dense_0/bias"])

    class Actor(nn.Module):
        max_action = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp([OBS, hidden, hidden, ACTION], nn.Tanh())

        def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
            return self.net(torch.as_tensor(obs)), state

    actor, critic = Actor(), Joined(hidden)
    put(actor, init, "actor")
    put(critic, init, "critic", 0)
    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,)), gymnasium.spaces.Box(-1.0, 1.0, (ACTION,))
    policy = ContinuousDeterministicPolicy(actor=actor, action_space=spaces[1], observation_space=spaces[0])
    adam = AdamOptimizerFactory(lr=RATE)
    learner = DDPG(policy=policy, policy_optim=adam, critic=critic, critic_optim=adam, tau=TAU, gamma=GAMMA)
    for u in range(UPDATES):
        following = Batch(obs=data["next_obs"][u], info=Batch())
        with torch.no_grad():
            q = learner._target_q_compute_value(following, learner._target_q_compute_action(following)).flatten()
        returns = data["reward"][u] + GAMMA * (1.0 - data["terminated"][u]) * q
        learner._update_with_batch(Batch(obs=data["obs"][u], act=data["action"][u], returns=returns, info=Batch()))
    return take("params", actor, [critic]) | take("target_params", learner.actor_old, [learner.critic_old])


UpdateFn = Callable[[str, Leaves, dict[str, torch.Tensor]], Leaves]
PEERS: dict[str, dict[str, UpdateFn]] = {
    "ddpg": {"float64": in_float64, "sb3": stable_baselines3, "torchrl": torchrl, "tianshou": tianshou},
    "td3": {"float64": in_float64, "sb3": stable_baselines3, "torchrl": torchrl},
    "d4pg": {"float64": in_float64},
    "fasttd3": {"float64": in_float64},
    "ddpg_batch_norm": {"float64": in_float64},
}
"""The codes that make each case, by name."""
