"""DDPG, TD3, D4PG and FastTD3 in NumPy, float64: networks are lists [W0, b0, W1, b1, ...], gradients made by hand."""

from typing import NamedTuple

import numpy as np


class Learned(NamedTuple):
    actor: list
    critic: list


def in_numpy(params, m=0):
    """The layers of the actor and of critic number m."""

    def layers(tree, pick):
        dense = [layer for _, layer in sorted(tree["params"].items())]
        return [np.asarray(layer[name], np.float64)[pick] for layer in dense for name in ("kernel", "bias")]

    return Learned(layers(params.actor, ...), layers(params.critic, m))


def forward(net, x, late=None, late_layer=0):
    tape = []
    for i in range(0, len(net), 2):
        if late is not None and i == 2 * late_layer:
            x = np.concatenate([x, late], axis=1)
        tape.append(x)
        x = x @ net[i] + net[i + 1]
        if i < len(net) - 2:
            x = np.maximum(x, 0.0)
    return x, tape


def backward(net, tape, d_out, late_layer=None):
    """Gradients of the parameters, and of the action [B, 2] where one enters."""
    grads, d_late = [], None
    for i in reversed(range(len(tape))):
        grads = [tape[i].T @ d_out, d_out.sum(0), *grads]
        d_in = d_out @ net[2 * i].T
        if i == late_layer:
            d_in, d_late = d_in[:, :-2], d_in[:, -2:]
        d_out = d_in * (tape[i][:, : d_in.shape[1]] > 0)
    return grads, d_late


def norm(grads):
    return np.sqrt(sum((g**2).sum() for g in grads))


class Adam:
    def __init__(self, net, rate, l2=0.0, decoupled=0.0, max_norm=np.inf):
        self.m, self.v, self.t = [0.0 * p for p in net], [0.0 * p for p in net], 0
        self.rate, self.l2, self.decoupled, self.max_norm = rate, l2, decoupled, max_norm

    def descend(self, net, grads):
        self.t += 1
        grads = [g * min(1.0, self.max_norm / norm(grads)) for g in grads]
        grads = [g + self.l2 * p for g, p in zip(grads, net, strict=True)]
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [0.999 * v + 0.001 * g**2 for v, g in zip(self.v, grads, strict=True)]
        hat = [
            (m / (1 - 0.9**self.t)) / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)
            for m, v in zip(self.m, self.v, strict=True)
        ]
        rate = self.rate(self.t - 1) if callable(self.rate) else self.rate
        return [p - rate * (h + self.decoupled * p) for p, h in zip(net, hat, strict=True)]


def algorithm_1(online, target, batch, adams, tau, late):
    """One update of weighted samples; returns the new online and target networks, the metrics and the TD errors."""
    weight = np.asarray(batch.weight[0], np.float64)
    obs, action, reward, discount, next_obs = (np.asarray(x[0], np.float64) for x in batch.data[:5])
    size = len(reward)
    next_q, _ = forward(target.critic, next_obs, np.tanh(forward(target.actor, next_obs)[0]), late)
    y = reward + discount * next_q[:, 0]
    q, tape = forward(online.critic, obs, action, late)
    td_error = y - q[:, 0]
    d_critic, _ = backward(online.critic, tape, -2.0 * (weight * td_error)[:, None] / size, late)
    critic = adams.critic.descend(online.critic, d_critic)

    mu, mu_tape = forward(online.actor, obs)
    pi_q, tape = forward(critic, obs, np.tanh(mu), late)
    _, d_action = backward(critic, tape, np.full((size, 1), -1.0 / size), late)
    d_actor, _ = backward(online.actor, mu_tape, d_action * (1 - np.tanh(mu) ** 2))
    actor = adams.actor.descend(online.actor, d_actor)

    new = Learned(actor, critic)
    mixed = [[tau * p + (1 - tau) * t for p, t in zip(*pair, strict=True)] for pair in zip(new, target, strict=True)]
    new_target = Learned(*mixed)
    metrics = {
        "critic_loss": (weight * td_error**2).mean(),
        "critic_grad_norm": norm(d_critic),
        "mean_q": q.mean(),
        "max_q": q.max(),
        "actor_loss": -pi_q.mean(),
        "actor_grad_norm": norm(d_actor),
        "saturated": (np.abs(np.tanh(mu)) > 0.99).mean(),
        "rejected": 0.0,
    }
    return new, new_target, metrics, td_error


def diagnosed(online, target, batch, late=0):
    """Shares of dead hidden units, and the distance of the target critic."""
    obs, action = (np.asarray(x[0], np.float64) for x in batch.data[:2])
    distance = norm([p - t for p, t in zip(online.critic, target.critic, strict=True)]) / norm(online.critic)
    return {
        "critic_dead": dead(online.critic, obs, action, late),
        "actor_dead": dead(online.actor, obs),
        "target_distance": distance,
    }


def dead(net, x, late=None, late_layer=0):
    """The share of hidden units that are 0 for every sample."""
    _, tape = forward(net, x, late, late_layer)
    sizes = [len(bias) for bias in net[1:-1:2]]
    return np.mean(np.concatenate([(h[:, :size] == 0).all(0) for h, size in zip(tape[1:], sizes, strict=True)]))


def td3_round(actor, critics, target_actor, target_critics, batches, noises, adams, tau):
    """One round of TD3, a critic step for each batch, then actor and targets; critics are a list of networks.

    Returns the new actor, critics and targets, and the sizes of the errors of each batch, averaged over critics.
    """
    errors = []
    for batch, noise in zip(batches, noises, strict=True):
        obs, action, reward, discount, next_obs = (np.asarray(x, np.float64) for x in batch)
        next_action = np.clip(np.tanh(forward(target_actor, next_obs)[0]) + noise, -1, 1)
        next_q = [forward(critic, next_obs, next_action)[0][:, 0] for critic in target_critics]
        y, each = reward + discount * np.min(next_q, 0), []
        for m, critic in enumerate(critics):
            q, tape = forward(critic, obs, action)
            each.append(y - q[:, 0])
            grads, _ = backward(critic, tape, -2.0 * each[-1][:, None] / len(y))
            critics[m] = adams.critic[m].descend(critic, grads)
        errors.append(np.mean(np.abs(each), 0))
    obs = np.asarray(batches[-1][0], np.float64)
    mu, mu_tape = forward(actor, obs)
    _, tape = forward(critics[0], obs, np.tanh(mu))
    _, d_action = backward(critics[0], tape, np.full((len(obs), 1), -1.0 / len(obs)), 0)
    d_actor, _ = backward(actor, mu_tape, d_action * (1 - np.tanh(mu) ** 2))
    actor = adams.actor.descend(actor, d_actor)
    return (
        actor,
        critics,
        mixed(actor, target_actor, tau),
        [mixed(critic, target, tau) for critic, target in zip(critics, target_critics, strict=True)],
        errors,
    )


def d4pg_step(online, target, batch, atoms, adams, tau):
    """One update of D4PG; returns the new online and target networks and the cross-entropy of each sample."""
    obs, action, reward, discount, next_obs = (np.asarray(x, np.float64) for x in batch)
    size = len(reward)
    next_logits, _ = forward(target.critic, next_obs, np.tanh(forward(target.actor, next_obs)[0]))
    y = projected(atoms, softmax(next_logits), reward, discount)
    logits, tape = forward(online.critic, obs, action)
    cross_entropy = -(y * np.log(softmax(logits))).sum(1)
    grads, _ = backward(online.critic, tape, (softmax(logits) - y) / size)
    critic = adams.critic.descend(online.critic, grads)

    mu, mu_tape = forward(online.actor, obs)
    logits, tape = forward(critic, obs, np.tanh(mu))
    _, d_action = backward(critic, tape, -d_mean(atoms, logits) / size, 0)
    d_actor, _ = backward(online.actor, mu_tape, d_action * (1 - np.tanh(mu) ** 2))
    actor = adams.actor.descend(online.actor, d_actor)
    new = Learned(actor, critic)
    return new, Learned(*(mixed(*pair, tau) for pair in zip(new, target, strict=True))), cross_entropy


def projected(atoms, shares, reward, discount):
    """The distributions [B, Z] of r + d·Z on the atoms, atom by atom."""
    y = np.zeros(shares.shape)
    for b in range(len(y)):
        for probability, atom in zip(shares[b], atoms, strict=True):
            place = (np.clip(reward[b] + discount[b] * atom, atoms[0], atoms[-1]) - atoms[0]) / (atoms[1] - atoms[0])
            low = min(int(place), len(atoms) - 2)
            y[b, low] += probability * (low + 1 - place)
            y[b, low + 1] += probability * (place - low)
    return y


def d_mean(atoms, logits):
    """The gradient of the mean of a distribution by its logits."""
    shares = softmax(logits)
    return shares * (atoms - (shares * atoms).sum(1, keepdims=True))


def fasttd3_round(actor, critics, targets, batches, noises, atoms, adams, tau, *, join):
    """One round of FastTD3: after each critic step its targets follow; then the actor, which has no target.

    The two critics are joined by "min" (of both projected targets the one with the lower mean) or "mean".
    """
    losses = []
    for batch, noise in zip(batches, noises, strict=True):
        obs, action, reward, discount, next_obs = (np.asarray(x, np.float64) for x in batch)
        next_action = np.clip(np.tanh(forward(actor, next_obs)[0]) + noise, -1, 1)
        shares = np.stack([softmax(forward(target, next_obs, next_action)[0]) for target in targets])
        both = np.stack([projected(atoms, each, reward, discount) for each in shares])
        lower = np.argmin((both * atoms).sum(-1), 0)
        y, each = both.mean(0) if join == "mean" else both[lower, np.arange(len(obs))], []
        for m, critic in enumerate(critics):
            logits, tape = forward(critic, obs, action)
            each.append(-(y * np.log(softmax(logits))).sum(1))
            grads, _ = backward(critic, tape, (softmax(logits) - y) / len(y))
            critics[m] = adams.critic[m].descend(critic, grads)
            targets[m] = mixed(critics[m], targets[m], tau)
        losses.append(np.sum(each, 0).mean())
    obs = np.asarray(batches[-1][0], np.float64)
    mu, mu_tape = forward(actor, obs)
    parts = [forward(critic, obs, np.tanh(mu)) for critic in critics]
    means = np.stack([(softmax(logits) * atoms).sum(1) for logits, _ in parts])
    weights = np.full(means.shape, 0.5) if join == "mean" else 1.0 * (means.argmin(0) == np.arange(2)[:, None])
    d_action = sum(
        backward(critic, tape, -weight[:, None] * d_mean(atoms, logits) / len(obs), 0)[1]
        for critic, (logits, tape), weight in zip(critics, parts, weights, strict=True)
    )
    d_actor, _ = backward(actor, mu_tape, d_action * (1 - np.tanh(mu) ** 2))
    return adams.actor.descend(actor, d_actor), losses


def mixed(net, target, tau):
    return [tau * p + (1 - tau) * t for p, t in zip(net, target, strict=True)]


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def dense_layers(params):
    """`[(kernel, bias)]` of the dense layers, in order."""
    return [(layer["kernel"], layer["bias"]) for _, layer in sorted(params["params"].items())]
