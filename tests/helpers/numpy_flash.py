"""FastTD3 with batch-normalised blocks in NumPy, float64: one batch of both pairs or two, gradients made by hand."""

from typing import NamedTuple

import numpy as np
from numpy_reference import d_mean, projected, softmax

BATCH_EPSILON, RMS_EPSILON = 1e-5, 1e-6


class Blocks(NamedTuple):
    """A network: kernels, `[(scale, shift)]` of the normalisations, the scale of the last one, the bias of the head."""

    kernels: list
    norms: list
    last: np.ndarray
    bias: np.ndarray


def blocks_of(tree, pick=...):
    p = {
        name: {k: np.asarray(x, np.float64)[pick] for k, x in node.items()}
        for name, node in tree.items()
        if name != "bias"
    }
    count = [sum(name.startswith(kind) for name in p) for kind in ("UnitDense", "BatchNorm")]
    return Blocks(
        [p[f"UnitDense_{i}"]["unit_kernel"] for i in range(count[0])],
        [(p[f"BatchNorm_{i}"]["scale"], p[f"BatchNorm_{i}"]["bias"]) for i in range(count[1])],
        p["RMSNorm_0"]["scale"],
        np.asarray(tree["bias"], np.float64)[pick],
    )


def moments_of(tree, pick=...):
    """`[(mean, variance)]` of the normalisations."""
    return [
        tuple(np.asarray(tree[f"BatchNorm_{i}"][x], np.float64)[pick] for x in ("mean", "var"))
        for i in range(len(tree))
    ]


def flat(net):
    return [*net.kernels, *(x for pair in net.norms for x in pair), net.last, net.bias]


def unflat(net, leaves):
    count = len(net.kernels)
    pairs = leaves[count:-2]
    return Blocks(leaves[:count], list(zip(pairs[::2], pairs[1::2], strict=True)), leaves[-2], leaves[-1])


def projected_net(net):
    """Columns of length 1, scales and shifts of length sqrt(d) together."""
    norms = []
    for scale, shift in net.norms:
        factor = np.sqrt(len(scale) / ((scale**2).sum() + (shift**2).sum()))
        norms.append((scale * factor, shift * factor))
    kernels = [kernel / np.sqrt((kernel**2).sum(0)) for kernel in net.kernels]
    return net._replace(kernels=kernels, norms=norms, last=net.last * np.sqrt(len(net.last) / (net.last**2).sum()))


def descend(adam, net, grads):
    return projected_net(unflat(net, adam.descend(flat(net), flat(grads))))


def forward(net, x, moments=None):
    """The outputs `[B, Z]` and a tape; without moments by those of the batch, which the tape holds."""
    tape = []

    def normed(x, i):
        mean, variance = (x.mean(0), x.var(0)) if moments is None else moments[i]
        hat = (x - mean) / np.sqrt(variance + BATCH_EPSILON)
        tape.append(("norm", i, hat, variance, mean))
        return hat * net.norms[i][0] + net.norms[i][1]

    def dense(x, i):
        tape.append(("dense", i, x))
        return x @ net.kernels[i]

    def relu(x):
        tape.append(("relu", x))
        return np.maximum(x, 0)

    x = dense(normed(x, 0), 0)
    for layer in range(1, len(net.norms), 2):
        wide = relu(normed(dense(x, layer), layer))
        x = x + relu(normed(dense(wide, layer + 1), layer + 1))
    root = np.sqrt((x**2).mean(1, keepdims=True) + RMS_EPSILON)
    return (x / root * net.last) @ net.kernels[-1] + net.bias, (tape, x, root)


def batch_moments(tape):
    return [(step[4], step[3]) for step in tape[0] if step[0] == "norm"]


def backward(net, kept, d_out, *, by_batch=True):
    """Gradients, a `Blocks`, and that of the input; `by_batch`: the moments were those of the batch."""
    tape, x, root = list(kept[0]), kept[1], kept[2]
    kernels, norms = [0.0 * k for k in net.kernels], [None] * len(net.norms)
    hat = x / root
    kernels[-1] = (hat * net.last).T @ d_out
    d = d_out @ net.kernels[-1].T
    last, d = (d * hat).sum(0), d * net.last
    d = d / root - x * (d * x).mean(1, keepdims=True) / root**3

    def step(d):
        kind, *rest = tape.pop()
        if kind == "relu":
            return d * (rest[0] > 0)
        if kind == "dense":
            i, inputs = rest
            kernels[i] = inputs.T @ d
            return d @ net.kernels[i].T
        i, hat, variance, _ = rest
        norms[i] = ((d * hat).sum(0), d.sum(0))
        d = d * net.norms[i][0]
        if by_batch:
            d = d - d.mean(0) - hat * (d * hat).mean(0)
        return d / np.sqrt(variance + BATCH_EPSILON)

    while len(tape) > 2:
        inner = d
        for _ in range(6):
            inner = step(inner)
        d = d + inner
    d = step(step(d))
    return Blocks(kernels, norms, last, d_out.sum(0)), d


class Learner(NamedTuple):
    """Actor, twin critics and their targets, and running moments of actor and critics."""

    actor: Blocks
    critics: list
    targets: list
    actor_moments: list
    critic_moments: list


def learner_of(state):
    stats = state.stats.networks
    return Learner(
        blocks_of(state.params.actor["params"]),
        [blocks_of(state.params.critic["params"], m) for m in range(2)],
        [blocks_of(state.target_params.critic["params"], m) for m in range(2)],
        moments_of(stats.actor),
        [moments_of(stats.critic, m) for m in range(2)],
    )


def moved(running, batch):
    return [tuple(0.99 * a + 0.01 * b for a, b in zip(*pair, strict=True)) for pair in zip(running, batch, strict=True)]


def critic_step(it, batch, noise, atoms, adams, tau, *, joint):
    """The learner after a step of the critics and of their targets; loss `[]` and errors `[B]`."""
    obs, action, reward, discount, next_obs = batch
    size = len(reward)
    next_action = np.clip(np.tanh(forward(it.actor, next_obs)[0]) + noise, -1, 1)
    now, after = np.concatenate([obs, action], 1), np.concatenate([next_obs, next_action], 1)
    both = np.concatenate([now, after])
    next_logits = [forward(net, both)[0][size:] if joint else forward(net, after)[0] for net in it.targets]
    places = np.clip(reward[:, None] + discount[:, None] * atoms, atoms[0], atoms[-1])
    means = np.stack([(softmax(logits) * places).sum(1) for logits in next_logits])
    lower = np.where((means[0] <= means[1])[:, None], *(softmax(logits) for logits in next_logits))
    y = projected(atoms, lower, reward, discount)
    loss, errors, critics, moments = 0.0, [], [], []
    for m, net in enumerate(it.critics):
        logits, tape = forward(net, both if joint else now)
        shares = softmax(logits[:size])
        loss -= (y * np.log(shares)).sum(1).mean()
        errors.append(np.abs((y * atoms).sum(1) - (shares * atoms).sum(1)))
        d_out = np.zeros_like(logits)
        d_out[:size] = (shares - y) / size
        critics.append(descend(adams["critic"][m], net, backward(net, tape, d_out)[0]))
        moments.append(moved(it.critic_moments[m], batch_moments(tape)))
    targets = [
        unflat(net, [tau * p + (1 - tau) * t for p, t in zip(flat(net), flat(target), strict=True)])
        for net, target in zip(critics, it.targets, strict=True)
    ]
    return it._replace(critics=critics, targets=targets, critic_moments=moments), loss, np.mean(errors, 0)


def actor_step(it, obs, atoms, adams, *, joint):
    """The learner after a step of the actor, and its loss."""
    raw, tape = forward(it.actor, obs)
    action = np.tanh(raw)
    pair = np.concatenate([obs, action], 1)
    parts = [
        forward(net, pair, moments if joint else None)
        for net, moments in zip(it.critics, it.critic_moments, strict=True)
    ]
    means = np.stack([(softmax(logits) * atoms).sum(1) for logits, _ in parts])
    d_action = 0.0
    for m, (logits, kept) in enumerate(parts):
        d_out = -1.0 * (means.argmin(0) == m)[:, None] * d_mean(atoms, logits) / len(obs)
        d_action = d_action + backward(it.critics[m], kept, d_out, by_batch=not joint)[1][:, obs.shape[1] :]
    grads, _ = backward(it.actor, tape, d_action * (1 - action**2))
    actor = descend(adams["actor"], it.actor, grads)
    return it._replace(actor=actor, actor_moments=moved(it.actor_moments, batch_moments(tape))), -means.min(0).mean()
