"""Recurrent DDPG and TD3 in NumPy, float64: an LSTM with back-propagation through time, every derivative made by hand.

A network is a `Remembering`: flat lists of arrays, so that Adam and the targets are those of `numpy_reference`.
"""

from typing import NamedTuple

import numpy as np
from numpy_reference import Adam, backward, forward, mixed, norm

EMBEDDED = ("obs", "action", "reward")


class Remembering(NamedTuple):
    """An LSTM encoder `[obs W, b, action W, b, reward W, b, shortcut W, b, input, recurrent, bias]`, and its bodies."""

    memory: list
    bodies: list


def in_numpy(params, critics=None):
    """A network of ours; of an ensemble of critics a body for each."""
    memory = params["memory"]
    dense = [memory[name][part] for name in (*EMBEDDED, "shortcut") for part in ("kernel", "bias")]
    cell = [memory["cell"][name] for name in ("input", "recurrent", "bias")]
    layers = [layer[name] for _, layer in sorted(params["body"]["params"].items()) for name in ("kernel", "bias")]
    bodies = [layers] if critics is None else [[leaf[m] for leaf in layers] for m in range(critics)]
    return Remembering(*([np.asarray(x, np.float64) for x in net] for net in ([*dense, *cell], bodies[0])))._replace(
        bodies=[[np.asarray(x, np.float64) for x in body] for body in bodies]
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Taped(NamedTuple):
    """What a step leaves behind for the way back."""

    inputs: list
    embedded: list
    h: np.ndarray
    c: np.ndarray
    gates: list
    c_new: np.ndarray
    shortcut: np.ndarray
    keep: np.ndarray


def step(memory, carry, obs, action, reward, first):
    """One step of a batch: features `[B, F]`, carry `(h, c)`, tape."""
    keep = 1.0 - first[:, None]
    h, c = keep * carry[0], keep * carry[1]
    inputs = [obs, keep * action, keep * reward[:, None]]
    embedded = [np.maximum(x @ memory[2 * i] + memory[2 * i + 1], 0) for i, x in enumerate(inputs)]
    kernel, recurrent, bias = memory[8:]
    i, f, g, o = np.split(np.concatenate(embedded, 1) @ kernel + h @ recurrent + bias, 4, 1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_new = f * c + i * g
    h_new = o * np.tanh(c_new)
    shortcut = np.maximum(obs @ memory[6] + memory[7], 0)
    tape = Taped(inputs, embedded, h, c, [i, f, g, o], c_new, shortcut, keep)
    return np.concatenate([h_new, shortcut], 1), (h_new, c_new), tape


def step_back(memory, tape, d_features, d_carry):
    """From the gradients of what a step gave to those of the parameters and of the carry before it."""
    (i, f, g, o), size = tape.gates, tape.h.shape[1]
    d_h, d_c = d_features[:, :size] + d_carry[0], d_carry[1]
    d_c = d_c + d_h * o * (1 - np.tanh(tape.c_new) ** 2)
    d_gates = [d_c * g * i * (1 - i), d_c * tape.c * f * (1 - f), d_c * i * (1 - g**2)]
    d_gates = np.concatenate([*d_gates, d_h * np.tanh(tape.c_new) * o * (1 - o)], 1)
    kernel, recurrent, _ = memory[8:]
    x = np.concatenate(tape.embedded, 1)
    d_cell = [x.T @ d_gates, tape.h.T @ d_gates, d_gates.sum(0)]
    ends = np.cumsum([e.shape[1] for e in tape.embedded])[:-1]
    d_dense = []
    for inputs, e, d in zip(tape.inputs, tape.embedded, np.split(d_gates @ kernel.T, ends, 1), strict=True):
        d_dense += [inputs.T @ (d * (e > 0)), (d * (e > 0)).sum(0)]
    d_short = d_features[:, size:] * (tape.shortcut > 0)
    d_dense += [tape.inputs[0].T @ d_short, d_short.sum(0)]
    return d_dense + d_cell, (tape.keep * (d_gates @ recurrent.T), tape.keep * d_c * f)


class History(NamedTuple):
    """Windows `[B, N]` in float64, and the carry that each begins from."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    first: np.ndarray
    action_before: np.ndarray
    reward_before: np.ndarray
    last: np.ndarray
    carry: tuple


def history(window, part):
    """The windows of a batch; `part` is where in the kept vectors `[B, K]` this network's h and c are."""
    arrays = [np.asarray(x, np.float64) for x in window[:7]]
    size = (part.stop - part.start) // 2
    kept = np.zeros((len(arrays[0]), 2 * size))
    if not isinstance(window.carry, tuple):
        kept = np.asarray(window.carry, np.float64)[:, part]
    return History(*arrays, np.asarray(window.last), (kept[:, :size], kept[:, size:]))


def unroll(memory, past, steps):
    """Features, carries and tapes of the first steps."""
    carry, found = past.carry, []
    for t in range(steps):
        action, reward = (
            (past.action_before, past.reward_before) if t == 0 else (past.action[:, t - 1], past.reward[:, t - 1])
        )
        found.append(step(memory, carry, past.obs[:, t], action, reward, past.first[:, t]))
        carry = found[-1][1]
    return zip(*found, strict=True)


def unroll_back(memory, tapes, d_features, burn_in):
    """Back-propagation through time, from the last step to the one after the burn-in."""
    grads, d_carry = [np.zeros_like(x) for x in memory], (0.0, 0.0)
    for t in reversed(range(burn_in, len(tapes))):
        each, d_carry = step_back(memory, tapes[t], d_features[t - burn_in], d_carry)
        grads = [a + b for a, b in zip(grads, each, strict=True)]
    return grads


def successors(memory, past, burn_in):
    """Features at the true successors that targets ask for the value of, by step learned from."""
    _, carries, _ = unroll(memory, past, past.obs.shape[1])
    rows, found = np.arange(len(past.obs)), []
    for t in range(burn_in, past.last.shape[1]):
        last = past.last[:, t]
        carry = tuple(np.stack([carries[last[b]][k][b] for b in rows]) for k in (0, 1))
        seen = past.next_obs[rows, last], past.action[rows, last], past.reward[rows, last]
        found.append(step(memory, carry, *seen, np.zeros(len(rows)))[0])
    return found


class Optimizers(NamedTuple):
    """An Adam for each list of arrays."""

    actor: tuple
    critic: tuple


def adams(actor, critic, rates, memory_rate=None):
    """Both networks' Adams, `(memory, bodies)`; the memory may have a rate of its own."""

    def of(net, rate):
        return Adam(net.memory, memory_rate or rate), [Adam(body, rate) for body in net.bodies]

    return Optimizers(of(actor, rates[0]), of(critic, rates[1]))


def descend(net, optimizer, d_memory, d_bodies):
    bodies = [adam.descend(*pair) for adam, *pair in zip(optimizer[1], net.bodies, d_bodies, strict=True)]
    return Remembering(optimizer[0].descend(net.memory, d_memory), bodies)


def whole_norm(d_memory, d_bodies):
    return norm([g for net in (d_memory, *d_bodies) for g in net])


def critic_step(critic, target_actor, target_critic, batch, noise, optimizer, settings):
    """The new critics, metrics and TD errors `[B]` of a batch; `noise` is `[B, W - b, A]`."""
    burn_in, share, parts = settings
    weight = np.asarray(batch.weight, np.float64)
    action, reward, discount = (np.asarray(x, np.float64)[:, burn_in:] for x in batch.data[1:4])
    of_actor, past = (history(batch.data.obs, part) for part in parts)
    chosen_at = successors(target_actor.memory, of_actor, burn_in)
    judged_at = successors(target_critic.memory, past, burn_in)
    features, _, tapes = unroll(critic.memory, past, past.last.shape[1])
    scale = weight[:, None] / len(weight) / action.shape[1]
    d_bodies, d_features = [[np.zeros_like(x) for x in body] for body in critic.bodies], []
    losses, errors, values = np.zeros(reward.shape), np.zeros(reward.shape), np.zeros(reward.shape)
    for t, (seen, judged) in enumerate(zip(chosen_at, judged_at, strict=True)):
        next_action = np.clip(np.tanh(forward(target_actor.bodies[0], seen)[0]) + noise[:, t], -1, 1)
        next_q = np.min([forward(body, judged, next_action)[0][:, 0] for body in target_critic.bodies], 0)
        y, x = reward[:, t] + discount[:, t] * next_q, features[burn_in + t]
        d_x = np.zeros_like(x)
        for m, body in enumerate(critic.bodies):
            q, tape = forward(body, x, action[:, t], 0)
            error = y - q[:, 0]
            d_q = -2 * scale * error[:, None]
            grads, _ = backward(body, tape, d_q, 0)
            d_bodies[m] = [a + b for a, b in zip(d_bodies[m], grads, strict=True)]
            d_x += to_features(body, tape, d_q)[:, : x.shape[1]]
            losses[:, t] += error**2
            errors[:, t] += np.abs(error) / len(critic.bodies)
            values[:, t] = q[:, 0] if m == 0 else values[:, t]
        d_features.append(d_x)
    d_memory = unroll_back(critic.memory, tapes, d_features, burn_in)
    metrics = {
        "critic_loss": (weight * losses.mean(1)).mean(),
        "critic_grad_norm": whole_norm(d_memory, d_bodies),
        "mean_q": values.mean(),
        "max_q": values.max(),
    }
    td_error = share * errors.max(1) + (1 - share) * errors.mean(1)
    return descend(critic, optimizer, d_memory, d_bodies), metrics, td_error


def to_features(body, tape, d_out):
    """The gradient of a body's input, `[B, F + A]`."""
    for i in reversed(range(len(tape))):
        d_out = d_out @ body[2 * i].T
        if i > 0:
            d_out = d_out * (tape[i] > 0)
    return d_out


def actor_step(actor, critic, batch, optimizer, settings):
    """The new actor and metrics; the gradient passes the action alone, through the first critic's body."""
    burn_in, _, parts = settings
    past, of_critic = (history(batch.data.obs, part) for part in parts)
    steps = past.last.shape[1]
    features, _, tapes = unroll(actor.memory, past, steps)
    judged, _, _ = unroll(critic.memory, of_critic, steps)
    body, d_body, d_features = actor.bodies[0], [np.zeros_like(x) for x in actor.bodies[0]], []
    size, values, actions = len(past.obs) * (steps - burn_in), [], []
    for t in range(burn_in, steps):
        mu, mu_tape = forward(body, features[t])
        q, tape = forward(critic.bodies[0], judged[t], np.tanh(mu), 0)
        d_action = to_features(critic.bodies[0], tape, np.full(q.shape, -1.0 / size))[:, judged[t].shape[1] :]
        d_mu = d_action * (1 - np.tanh(mu) ** 2)
        d_body = [a + b for a, b in zip(d_body, backward(body, mu_tape, d_mu)[0], strict=True)]
        d_features.append(to_features(body, mu_tape, d_mu))
        values.append(q)
        actions.append(np.tanh(mu))
    d_memory = unroll_back(actor.memory, tapes, d_features, burn_in)
    metrics = {
        "actor_loss": -np.mean(values),
        "actor_grad_norm": whole_norm(d_memory, [d_body]),
        "saturated": (np.abs(actions) > 0.99).mean(),
    }
    return descend(actor, optimizer, d_memory, [d_body]), metrics


def follow(net, target, tau):
    bodies = [mixed(*pair, tau) for pair in zip(net.bodies, target.bodies, strict=True)]
    return Remembering(mixed(net.memory, target.memory, tau), bodies)


def memory_round(online, target, batches, noises, optimizers, tau, settings):
    """A critic step for each batch, then one of the actor and of the targets.

    Args:
      online: `(actor, critic)`, and so is `target`.
      batches: `[B]` each.
      noises: on the targets' actions.
      optimizers: from `adams`.
      tau: mixing factor.
      settings: burn-in, share of the largest error in the priority, and where in kept states each network's part is.

    Returns:
      The new online and target networks, metrics and TD errors by batch, and the metrics of the actor.
    """
    (actor, critic), found = online, []
    for batch, noise in zip(batches, noises, strict=True):
        critic, *each = critic_step(critic, *target, batch, noise, optimizers.critic, settings)
        found.append(each)
    actor, metrics = actor_step(actor, critic, batches[-1], optimizers.actor, settings)
    new = actor, critic
    return new, tuple(follow(*pair, tau) for pair in zip(new, target, strict=True)), found, metrics
