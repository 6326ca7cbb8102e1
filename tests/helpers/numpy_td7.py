"""TD7 in NumPy, float64: embeddings, copies of everything by a period, gradients made by hand."""

from typing import NamedTuple

import numpy as np


def layers_of(tree, pick=...):
    """`[W0, b0, W1, b1, ...]` of dense layers by name."""
    return [np.asarray(layer[x], np.float64)[pick] for _, layer in sorted(tree.items()) for x in ("kernel", "bias")]


def embedded_of(tree, pick=...):
    """The layer that takes observation and action in, then those behind."""
    return [*layers_of({"Dense_0": tree["Dense_0"]}, pick), *layers_of(tree["behind"], pick)]


class Nets(NamedTuple):
    """Networks as lists of layers; the encoder is a pair, of states and of states with actions."""

    learned: tuple
    fixed: tuple
    actor: list
    critics: list


def nets_of(params):
    encoders = [
        tuple(layers_of(params.encoder[copy][name]["params"]) for name in ("state", "pair"))
        for copy in ("learned", "fixed")
    ]
    critics = [embedded_of(params.critic["params"], m) for m in range(2)]
    return Nets(*encoders, embedded_of(params.actor["params"]), critics)


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def d_elu(x):
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def relu(x):
    return np.maximum(x, 0)


def d_relu(x):
    return 1.0 * (x > 0)


def mlp(net, x, act):
    """The output, and of each layer its input and its product."""
    tape = []
    for i in range(0, len(net), 2):
        z = x @ net[i] + net[i + 1]
        tape.append((x, z))
        x = act(z) if i < len(net) - 2 else z
    return x, tape


def mlp_backward(net, tape, d_out, d_act):
    """Gradients of the parameters and of the input."""
    grads = []
    for i in reversed(range(len(tape))):
        x, z = tape[i]
        d_z = d_out if i == len(tape) - 1 else d_out * d_act(z)
        grads = [x.T @ d_z, d_z.sum(0), *grads]
        d_out = d_z @ net[2 * i].T
    return grads, d_out


def normed(x):
    return x / np.abs(x).mean(-1, keepdims=True)


def normed_backward(x, d_out):
    """Of x / m with m = mean |x|: d/m less the share of each component in m."""
    mean = np.abs(x).mean(-1, keepdims=True)
    return d_out / mean - np.sign(x) / x.shape[-1] * (d_out * x).sum(-1, keepdims=True) / mean**2


def beside(net, seen, embeddings, act):
    """A network beside embeddings: output, and what a backward pass needs."""
    z = seen @ net[0] + net[1]
    out, tape = mlp(net[2:], np.concatenate([normed(z), embeddings], 1), act)
    return out, (seen, z, tape)


def beside_backward(net, kept, d_out, d_act):
    """Gradients of the parameters, of what is seen, and of the embeddings."""
    seen, z, tape = kept
    grads, d_in = mlp_backward(net[2:], tape, d_out, d_act)
    d_z = normed_backward(z, d_in[:, : z.shape[1]])
    return [seen.T @ d_z, d_z.sum(0), *grads], d_z @ net[0].T, d_in[:, z.shape[1] :]


def of_state(encoder, obs):
    out, tape = mlp(encoder[0], obs, elu)
    return normed(out), (out, tape)


def of_pair(encoder, state, action):
    return mlp(encoder[1], np.concatenate([state, action], 1), elu)


def encoder_step(nets, batch, adams):
    """The learned encoder after a step on the embedding of the successor, and its loss."""
    obs, action, _, _, next_obs = batch
    after, _ = of_state(nets.learned, next_obs)
    before, (raw, state_tape) = of_state(nets.learned, obs)
    foretold, pair_tape = of_pair(nets.learned, before, action)
    error = foretold - after
    d_pair, d_in = mlp_backward(nets.learned[1], pair_tape, 2 * error / error.size, d_elu)
    d_before = d_in[:, : before.shape[1]]
    d_state, _ = mlp_backward(nets.learned[0], state_tape, normed_backward(raw, d_before), d_elu)
    stepped = adams["encoder"].descend([*nets.learned[0], *nets.learned[1]], [*d_state, *d_pair])
    count = len(nets.learned[0])
    return (stepped[:count], stepped[count:]), (error**2).mean()


def values(encoder, critic, obs, action):
    """Values `[B, 1]`, and what a backward pass needs."""
    state, _ = of_state(encoder, obs)
    pair, pair_tape = of_pair(encoder, state, action)
    out, kept = beside(critic, np.concatenate([obs, action], 1), np.concatenate([pair, state], 1), elu)
    return out, (kept, pair_tape, state.shape[1])


def d_action_of_values(encoder, critic, kept, d_out, size):
    """The gradient of values by the action, which enters by itself and by the embedding of both."""
    inner, pair_tape, embedding = kept
    _, d_seen, d_embeddings = beside_backward(critic, inner, d_out, d_elu)
    _, d_in = mlp_backward(encoder[1], pair_tape, d_embeddings[:, :embedding], d_elu)
    return d_seen[:, -size:] + d_in[:, -size:]


def critic_step(nets, target, batch, noise, bounds, adams):
    """Critics after a step, the targets `[B]`, loss and priorities' errors `[B]`."""
    obs, action, reward, discount, next_obs = batch
    state, _ = of_state(target.fixed, next_obs)
    next_action = np.clip(np.tanh(beside(target.actor, next_obs, state, relu)[0]) + noise, -1, 1)
    next_q = np.min([values(target.fixed, critic, next_obs, next_action)[0][:, 0] for critic in target.critics], 0)
    y = reward + discount * np.clip(next_q, *bounds)
    critics, errors, loss = [], [], 0.0
    for m, critic in enumerate(nets.critics):
        q, kept = values(nets.fixed, critic, obs, action)
        error = q[:, 0] - y
        size = np.abs(error)
        loss += np.where(size < 1, error**2 / 2, size - 0.5).mean()
        grads, _, _ = beside_backward(critic, kept[0], np.clip(error, -1, 1)[:, None] / len(y), d_elu)
        critics.append(adams[f"critic_{m}"].descend(critic, grads))
        errors.append(size)
    return critics, y, loss, np.maximum(np.max(errors, 0), 1.0)


def actor_step(nets, obs, adams):
    """The actor after a step on the mean of both critics, and its loss."""
    state, _ = of_state(nets.fixed, obs)
    mu, kept = beside(nets.actor, obs, state, relu)
    action, d_action, loss = np.tanh(mu), 0.0, 0.0
    for critic in nets.critics:
        q, of_q = values(nets.fixed, critic, obs, action)
        loss -= q.mean() / 2
        d_out = np.full(q.shape, -0.5 / len(q))
        d_action = d_action + d_action_of_values(nets.fixed, critic, of_q, d_out, action.shape[1])
    grads, _, _ = beside_backward(nets.actor, kept, d_action * (1 - action**2), d_relu)
    return adams["actor"].descend(nets.actor, grads), loss
