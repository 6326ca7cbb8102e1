"""MR.Q in NumPy, float64: a model unrolled over windows, returns of n steps, gradients made by hand."""

from typing import NamedTuple

import numpy as np
from numpy_td7 import d_elu, d_relu, elu, relu

FLAX_EPSILON, STATE_EPSILON = 1e-6, 1e-5


class Nets(NamedTuple):
    """Networks as lists of arrays, `[W, b, scale, shift]` of each hidden layer and `[W, b]` of the last.

    The encoder is of states, of pairs, whose first `[W, b]` takes the action in, and the model, a last layer alone.
    """

    learned: tuple
    fixed: tuple
    actor: list
    critics: list


def layers_of(tree, pick=...):
    count, arrays = sum(name.startswith("Dense") for name in tree), []
    for i in range(count):
        arrays += [tree[f"Dense_{i}"]["kernel"], tree[f"Dense_{i}"]["bias"]]
        if i < count - 1:
            arrays += [tree[f"LayerNorm_{i}"]["scale"], tree[f"LayerNorm_{i}"]["bias"]]
    return [np.asarray(x, np.float64)[pick] for x in arrays]


def nets_of(params):
    def encoder(tree):
        pair = tree["pair"]["params"]
        entry = [np.asarray(pair["Dense_0"][name], np.float64) for name in ("kernel", "bias")]
        parts = [layers_of(tree["state"]["params"]), [*entry, *layers_of(pair["behind"])]]
        return tuple(parts + ([layers_of(tree["model"]["params"])] if "model" in tree else []))

    critics = [layers_of(params.critic["params"], m) for m in range(2)]
    encoders = encoder(params.encoder["learned"]), encoder(params.encoder["fixed"])
    return Nets(*encoders, layers_of(params.actor["params"]), critics)


def standardized(x, epsilon):
    spread = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return (x - x.mean(-1, keepdims=True)) / spread, spread


def standardized_backward(unit, spread, d_unit):
    d_spread = (d_unit * unit).mean(-1, keepdims=True)
    return (d_unit - d_unit.mean(-1, keepdims=True) - unit * d_spread) / spread


def mlp(net, x, act):
    """The output, and what a backward pass needs of each layer."""
    tape, hidden = [], len(net) // 4
    for i in range(hidden):
        kernel, bias, scale, shift = net[4 * i : 4 * i + 4]
        unit, spread = standardized(x @ kernel + bias, FLAX_EPSILON)
        tape.append((x, unit, spread, unit * scale + shift))
        x = act(tape[-1][3])
    return x @ net[-2] + net[-1], (tape, x)


def mlp_backward(net, kept, d_out, d_act):
    """Gradients of the parameters and of the input."""
    tape, x = kept
    grads, d_x = [x.T @ d_out, d_out.sum(0)], d_out @ net[-2].T
    for i in reversed(range(len(tape))):
        x, unit, spread, scaled = tape[i]
        d_scaled = d_x * d_act(scaled)
        d_z = standardized_backward(unit, spread, d_scaled * net[4 * i + 2])
        grads = [x.T @ d_z, d_z.sum(0), (d_scaled * unit).sum(0), d_scaled.sum(0), *grads]
        d_x = d_z @ net[4 * i].T
    return grads, d_x


def of_state(encoder, obs):
    out, kept = mlp(encoder[0], obs, elu)
    unit, spread = standardized(out, STATE_EPSILON)
    return elu(unit), (kept, unit, spread)


def of_state_backward(encoder, tape, d_state):
    kept, unit, spread = tape
    return mlp_backward(encoder[0], kept, standardized_backward(unit, spread, d_state * d_elu(unit)), d_elu)[0]


def of_pair(encoder, state, action):
    net = encoder[1]
    entry = action @ net[0] + net[1]
    out, kept = mlp(net[2:], np.concatenate([state, elu(entry)], 1), elu)
    return out, (action, entry, kept, state.shape[1])


def of_pair_backward(encoder, tape, d_pair):
    """Gradients of the parameters, of the state's embedding and of the action."""
    action, entry, kept, size = tape
    net = encoder[1]
    grads, d_in = mlp_backward(net[2:], kept, d_pair, d_elu)
    d_entry = d_in[:, size:] * d_elu(entry)
    return [action.T @ d_entry, d_entry.sum(0), *grads], d_in[:, :size], d_entry @ net[0].T


def two_hot(places, rewards):
    """Row by row, between the places below and above."""
    found = np.zeros((len(rewards), len(places)))
    for row, reward in zip(found, np.clip(rewards, places[0], places[-1]), strict=True):
        above = max(1, int(np.searchsorted(places, reward)))
        share = (reward - places[above - 1]) / (places[above] - places[above - 1])
        row[[above - 1, above]] = 1 - share, share
    return found


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit_length(x):
    size = np.sqrt((x**2).sum(-1, keepdims=True))
    return x / size, size


def contrast(said, after, temperature):
    """Losses `[B]`, and the gradient of their sum by what was said."""
    (u, size), (v, _) = unit_length(said), unit_length(after)
    p = softmax(u @ v.T / temperature)
    d_u = (p - np.eye(len(u))) @ v / temperature
    return -np.log(np.diag(p)), (d_u - u * (d_u * u).sum(-1, keepdims=True)) / size


def encoder_step(nets, rows, settings, adams):
    """The learned encoder after a step, and the parts of its loss, each weighted, by name."""
    encoder, count = nets.learned, len(rows["reward"])
    state, begin = of_state(encoder, rows["obs"][:, 0])
    size, known, losses, tapes = state.shape[1], np.ones(count), dict.fromkeys(settings["weights"], 0.0), []
    for t in range(settings["horizon"]):
        pair, tape = of_pair(encoder, state, rows["action"][:, t])
        said, kept = mlp(encoder[2], pair, elu)
        after, _ = of_state(nets.fixed, rows["next_obs"][:, t])
        state, done, logits = said[:, :size], said[:, size], said[:, size + 1 :]
        wanted = two_hot(settings["places"], rows["reward"][:, t])
        apart, d_apart = contrast(state, after, settings["temperature"])
        each = {
            "reward": (-(wanted * np.log(softmax(logits))).sum(1), softmax(logits) - wanted),
            "next": (((state - after) ** 2).mean(1), 2 * (state - after) / size),
            "done": ((done - rows["terminated"][:, t]) ** 2, 2 * (done - rows["terminated"][:, t])[:, None]),
            "contrast": (apart, d_apart),
        }
        counted = {name: settings["weights"][name] * known / count for name in each}
        losses = {name: losses[name] + (counted[name] * each[name][0]).sum() for name in each}
        d = {name: counted[name][:, None] * each[name][1] for name in each}
        tapes.append((tape, kept, np.concatenate([d["next"] + d["contrast"], d["done"], d["reward"]], 1)))
        known = known * ~(rows["terminated"][:, t] | rows["truncated"][:, t])
    d_state, of_pairs, of_model = np.zeros((count, size)), [], []
    for tape, kept, d_said in reversed(tapes):
        d_said[:, :size] += d_state
        d_model, d_pair = mlp_backward(encoder[2], kept, d_said, d_elu)
        d_net, d_state, _ = of_pair_backward(encoder, tape, d_pair)
        of_pairs.append(d_net)
        of_model.append(d_model)
    over_steps = [sum(each) for steps in (of_pairs, of_model) for each in zip(*steps, strict=True)]
    grads = [*of_state_backward(encoder, begin, d_state), *over_steps]
    stepped = adams["encoder"].descend([x for part in encoder for x in part], grads)
    cuts = np.cumsum([len(part) for part in encoder])
    return tuple(stepped[stop - len(part) : stop] for part, stop in zip(encoder, cuts, strict=True)), losses


def returns(rows, n_step, gamma):
    """Sums of rewards, discounts and true successors of the first n steps, row by row."""
    found = []
    for reward, terminated, truncated, next_obs in zip(
        *(rows[name] for name in ("reward", "terminated", "truncated", "next_obs")), strict=True
    ):
        total, discount = 0.0, 1.0
        for i in range(n_step):
            total, discount, after = total + discount * reward[i], discount * gamma, next_obs[i]
            if terminated[i] or truncated[i]:
                discount *= not terminated[i]
                break
        found.append((total, discount, after))
    return (np.array(each) for each in zip(*found, strict=True))


def values(encoder, critic, state, action):
    """Values `[B]`, and what a backward pass needs."""
    pair, tape = of_pair(encoder, state, action)
    out, kept = mlp(critic, pair, elu)
    return out[:, 0], (tape, kept)


def critic_step(nets, target, rows, noise, settings, units, adams):
    """Critics after a step by values in the units of before, the loss, and the errors of priorities `[B]`."""
    now, before = units
    total, discount, after = returns(rows, settings["n_step"], settings["gamma"])
    state, _ = of_state(target.fixed, after)
    next_action = np.clip(np.tanh(mlp(target.actor, state, relu)[0]) + noise, -1, 1)
    next_q = np.min([values(target.fixed, critic, state, next_action)[0] for critic in target.critics], 0)
    y = (total + discount * next_q * before) / now
    state, _ = of_state(nets.fixed, rows["obs"][:, 0])
    errors, loss, grads = [], 0.0, []
    for critic in nets.critics:
        q, (_, kept) = values(nets.fixed, critic, state, rows["action"][:, 0])
        size = np.abs(q - y)
        loss += np.where(size < 1, size**2 / 2, size - 0.5).mean()
        grads.append(mlp_backward(critic, kept, np.clip(q - y, -1, 1)[:, None] / len(y), d_elu)[0])
        errors.append(size)
    critics = [adams[f"critic_{m}"].descend(critic, grads[m]) for m, critic in enumerate(nets.critics)]
    return critics, loss, np.maximum(np.max(errors, 0), 1.0)


def actor_step(nets, obs, penalty, adams):
    """The actor after a step on the mean of both critics, held back by a penalty, and its loss."""
    state, _ = of_state(nets.fixed, obs)
    before, kept = mlp(nets.actor, state, relu)
    action, d_action, loss = np.tanh(before), 0.0, penalty * (before**2).mean()
    for critic in nets.critics:
        q, (tape, of_q) = values(nets.fixed, critic, state, action)
        loss -= q.mean() / 2
        _, d_pair = mlp_backward(critic, of_q, np.full((len(q), 1), -0.5 / len(q)), d_elu)
        d_action = d_action + of_pair_backward(nets.fixed, tape, d_pair)[2]
    d_before = d_action * (1 - action**2) + 2 * penalty * before / before.size
    grads, _ = mlp_backward(nets.actor, kept, d_before, d_relu)
    return adams["actor"].descend(nets.actor, grads), loss
