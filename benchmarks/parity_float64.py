"""The cases of `parity` in torch in float64, written from the papers on autograd: it shares nothing with `ddpg_jax`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from parity import ALGORITHM, ATOMS, CASES, SMOOTHED, UPDATES

Leaves = dict[str, np.ndarray]
"""Weights by our names."""

RATE, TAU, GAMMA = ALGORITHM["critic_learning_rate"], ALGORITHM["tau"], ALGORITHM["gamma"]


class Float64:
    """Any case by autograd in float64, from the papers: leaves by our names are the only thing taken from here.

    Args:
      case: which one.
      init: weights by our names.
    """

    def __init__(self, case: str, init: Leaves) -> None:
        self.case, self.norm = case, "batch" in case
        self.online = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in init.items()}
        self.target = {name: x.detach().clone() for name, x in self.online.items()}
        self.atoms = torch.linspace(ATOMS["v_min"], ATOMS["v_max"], ATOMS["num_atoms"], dtype=torch.float64)
        decay = 0.1 if case == "fasttd3" else 0.0
        self.adams = {
            network: torch.optim.AdamW(self.of(network), RATE, weight_decay=decay) for network in ("actor", "critic")
        }

    def of(self, network: str) -> list[torch.Tensor]:
        """The parameters of a network."""
        return [x for name, x in self.online.items() if name.startswith(f"params/{network}/")]

    def run(self, leaves: dict[str, torch.Tensor], network: str, x: torch.Tensor, action: Any = None) -> torch.Tensor:
        """The outputs of the actor, or of all critics, `[M, B, Z]`."""

        def named(layer: str, field: str) -> torch.Tensor:
            return leaves[f"params/{network}/params/{layer}/{field}"]

        def normed(x: torch.Tensor, number: int) -> torch.Tensor:
            if not self.norm or (network == "critic" and number > 1):
                return x
            x = (x - x.mean(-2, keepdim=True)) / torch.sqrt(x.var(-2, keepdim=True, correction=0) + 1e-5)
            scale, bias = named(f"BatchNorm_{number}", "scale"), named(f"BatchNorm_{number}", "bias")
            return x * scale[..., None, :] + bias[..., None, :]

        enters = 1 if self.norm else 0
        if network == "critic":
            copies = named("Dense_0", "bias").shape[0]
            x, action = x.expand(copies, *x.shape), action.expand(copies, *action.shape)
        x = normed(x, 0)
        for i in range(3):
            x = torch.cat([x, action], -1) if network == "critic" and i == enters else x
            x = x @ named(f"Dense_{i}", "kernel") + named(f"Dense_{i}", "bias")[..., None, :]
            x = torch.relu(normed(x, i + 1)) if i < 2 else x
        return torch.tanh(x) if network == "actor" else x

    def target_of(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the critics learn, `[B]`, or for categorical ones `[B, Z]`."""
        chooser = self.online if self.case == "fasttd3" else self.target
        action = self.run(chooser, "actor", batch["next_obs"])
        if "td3" in self.case:
            clip = SMOOTHED["target_noise_clip"]
            action = (action + (SMOOTHED["target_noise"] * batch["noise"]).clamp(-clip, clip)).clamp(-1, 1)
        outputs = self.run(self.target, "critic", batch["next_obs"], action)
        discount = GAMMA * (1.0 - batch["terminated"])
        if outputs.shape[-1] == 1:
            return batch["reward"] + discount * outputs[..., 0].min(0).values
        projected = torch.stack([self.project(torch.softmax(each, -1), batch["reward"], discount) for each in outputs])
        lowest = (projected * self.atoms).sum(-1).argmin(0)
        return projected[lowest, torch.arange(len(lowest))]

    def project(self, shares: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor) -> torch.Tensor:
        """Bellemare et al.'s Algorithm 1: each atom's mass goes to its two neighbours."""
        low, high, count = self.atoms[0], self.atoms[-1], len(self.atoms)
        place = ((reward[:, None] + discount[:, None] * self.atoms).clamp(low, high) - low) / (high - low) * (count - 1)
        below = place.floor().clamp(0, count - 2).long()
        made = torch.zeros_like(shares)
        made.scatter_add_(1, below, shares * (below + 1 - place))
        return made.scatter_add_(1, below + 1, shares * (place - below))

    def critic_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Summed over critics, the mean over the batch."""
        with torch.no_grad():
            y = self.target_of(batch)
        outputs = self.run(self.online, "critic", batch["obs"], batch["action"])
        if outputs.shape[-1] == 1:
            return ((y - outputs[..., 0]) ** 2).mean(1).sum()
        return -(y * torch.log_softmax(outputs, -1)).sum(-1).mean(1).sum()

    def actor_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Minus what the critics say of the actor's actions."""
        outputs = self.run(self.online, "critic", batch["obs"], self.run(self.online, "actor", batch["obs"]))
        if outputs.shape[-1] == 1:
            return -outputs[0].mean()
        values = (torch.softmax(outputs, -1) * self.atoms).sum(-1)
        return -(values.min(0).values if self.case == "fasttd3" else values[0]).mean()

    def descend(self, network: str, loss: torch.Tensor) -> None:
        """A step of Adam on one network."""
        for adam in self.adams.values():
            adam.zero_grad()
        loss.backward()
        self.adams[network].step()

    def follow(self, *networks: str) -> None:
        """Targets of some networks move toward the parameters."""
        for name, x in self.online.items():
            if name.split("/")[1] in networks:
                self.target[name] = TAU * x.detach() + (1.0 - TAU) * self.target[name]


def in_float64(case: str, init: Leaves, data: dict[str, torch.Tensor]) -> Leaves:
    """All updates of a case in float64."""
    learner, delay = Float64(case, init), CASES[case].get("policy_delay", 1)
    for u in range(UPDATES):
        batch = {name: x[u].double() for name, x in data.items()}
        learner.descend("critic", learner.critic_loss(batch))
        if case == "fasttd3":
            learner.follow("critic")
        if u % delay == delay - 1:
            learner.descend("actor", learner.actor_loss(batch))
            learner.follow(*(() if case == "fasttd3" else ("actor", "critic")))
    targets = learner.target.items()
    return {name: x.detach().numpy() for name, x in learner.online.items()} | {
        f"target_{name}": x.numpy() for name, x in targets if case != "fasttd3" or "/critic/" in name
    }
