"""DrQ-v2 in NumPy, float64: convolutions as sums over windows, layer normalisation, gradients made by hand."""

import numpy as np
from numpy_reference import Adam, backward, forward, norm

STRIDES = {"drqv2": (2, 1, 1, 1), "ddpg": (2, 2, 2), "small": (2, 2, 2), "strided": (2, 2, 2, 1)}


def layers_of(tree, pick=...):
    """`[W0, b0, W1, b1, ...]` of layers by name."""
    found = [np.asarray(layer[name], np.float64) for _, layer in sorted(tree.items()) for name in ("kernel", "bias")]
    return [layer[pick] for layer in found]


def trunk_of(tree):
    """Kernel and bias of the layer, scale and bias of its normalisation."""
    dense, layer_norm = tree["params"]["Dense_0"], tree["params"]["LayerNorm_0"]
    found = dense["kernel"], dense["bias"], layer_norm["scale"], layer_norm["bias"]
    return [np.asarray(x, np.float64) for x in found]


def networks_of(params, critics=2):
    """Encoder, trunks and heads of actor and critics."""
    actor, critic = params.actor, params.critic
    return {
        "encoder": layers_of(params.encoder),
        "actor_trunk": trunk_of(actor["first"]),
        "actor": layers_of(actor["second"]["params"]),
        "critic_trunk": trunk_of(critic["first"]),
        **{f"critic_{m}": layers_of(critic["second"]["params"], m) for m in range(critics)},
    }


def side_by_side(stacks):
    """`[B, k, H, W, C] -> [B, H, W, k·C]`, scaled."""
    return np.concatenate(list(np.moveaxis(stacks, 1, 0)), -1).astype(np.float64) / 255 - 0.5


def shifted(stack, offset, pad):
    """Rows and columns moved by an offset, the edge repeated."""
    height, width = stack.shape[-3:-1]
    out = np.empty_like(stack)
    for i in range(height):
        for j in range(width):
            row = min(max(i + offset[0] - pad, 0), height - 1)
            out[..., i, j, :] = stack[..., row, min(max(j + offset[1] - pad, 0), width - 1), :]
    return out


def windows(x, size, stride):
    """`(i, j, x of the window at output i, j)`."""
    for i in range((x.shape[1] - size) // stride + 1):
        for j in range((x.shape[2] - size) // stride + 1):
            yield i, j, x[:, i * stride : i * stride + size, j * stride : j * stride + size]


def encode(net, strides, stacks):
    """Features `[B, F]`, and what a backward pass needs."""
    x, tape = side_by_side(stacks), []
    for kernel, bias, stride in zip(net[::2], net[1::2], strides, strict=True):
        size = kernel.shape[0]
        side = [(s - size) // stride + 1 for s in x.shape[1:3]]
        out = np.zeros((len(x), *side, kernel.shape[-1]))
        for i, j, seen in windows(x, size, stride):
            out[:, i, j] = np.tensordot(seen, kernel, 3) + bias
        tape.append((x, out > 0))
        x = np.maximum(out, 0)
    return x.reshape(len(x), -1), tape


def encode_backward(net, strides, tape, d_out):
    """Gradients of the layers."""
    grads = []
    for (x, alive), kernel, stride in reversed(list(zip(tape, net[::2], strides, strict=True))):
        d = d_out.reshape(alive.shape) * alive
        size, d_kernel, d_x = kernel.shape[0], np.zeros_like(kernel), np.zeros_like(x)
        for i, j, seen in windows(x, size, stride):
            d_kernel += np.tensordot(seen, d[:, i, j], (0, 0))
            part = np.s_[:, i * stride : i * stride + size, j * stride : j * stride + size]
            d_x[part] += np.tensordot(d[:, i, j], kernel, (1, 3))
        grads, d_out = [d_kernel, d.sum((0, 1, 2)), *grads], d_x
    return grads


def trunk(net, features):
    kernel, bias, scale, shift = net
    x = features @ kernel + bias
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normed = (x - mean) / np.sqrt(var + 1e-6)
    return np.tanh(normed * scale + shift), (features, normed, var)


def trunk_backward(net, tape, out, d_out):
    """Gradients of the trunk, and of the features."""
    kernel, _, scale, _ = net
    features, normed, var = tape
    d = d_out * (1 - out**2)
    d_normed = d * scale
    mean = d_normed.mean(-1, keepdims=True) + normed * (d_normed * normed).mean(-1, keepdims=True)
    d_x = (d_normed - mean) / np.sqrt(var + 1e-6)
    return [features.T @ d_x, d_x.sum(0), (d * normed).sum(0), d.sum(0)], d_x @ kernel.T


def inputs_backward(net, tape, d_out, size):
    """Gradients of a network's layers, and of all that enters its first, of which the last `size` are the action."""
    grads, _ = backward(net, tape, d_out)
    for i in reversed(range(len(tape))):
        d_out = (d_out @ net[2 * i].T) * (tape[i] > 0 if i else 1.0)
    return grads, d_out[:, :-size], d_out[:, -size:]


def drqv2_update(nets, targets, batch, next_noise, noise, adams, strides, tau):
    """One update; noises are clipped already. Returns the new networks and targets, and what is logged of it."""
    obs, action, reward, discount, next_obs = batch
    size, width = len(reward), action.shape[1]
    heads = [name for name in nets if name.startswith("critic_") and name != "critic_trunk"]
    h, tape = encode(nets["encoder"], strides, obs)
    next_h, _ = encode(nets["encoder"], strides, next_obs)
    mu = np.tanh(forward(nets["actor"], trunk(nets["actor_trunk"], next_h)[0])[0])
    next_action = np.clip(mu + next_noise, -1, 1)
    next_in = np.concatenate([trunk(targets["critic_trunk"], next_h)[0], next_action], 1)
    y = reward + discount * np.min([forward(targets[name], next_in)[0][:, 0] for name in heads], 0)

    seen, trunk_tape = trunk(nets["critic_trunk"], h)
    new, loss, d_seen, values, sizes = dict(nets), 0.0, 0.0, [], []
    for name in heads:
        q, q_tape = forward(nets[name], np.concatenate([seen, action], 1))
        error = y - q[:, 0]
        loss += (error**2).mean()
        grads, d_in, _ = inputs_backward(nets[name], q_tape, -2 * error[:, None] / size, width)
        d_seen, new[name] = d_seen + d_in, grads
        values.append(q[:, 0])
        sizes.append(np.abs(error))
    grads = {name: new[name] for name in heads}
    grads["critic_trunk"], d_h = trunk_backward(nets["critic_trunk"], trunk_tape, seen, d_seen)
    grads["encoder"] = encode_backward(nets["encoder"], strides, tape, d_h)
    for name, gradient in grads.items():
        new[name] = adams[name].descend(nets[name], gradient)

    a_seen, a_trunk_tape = trunk(nets["actor_trunk"], h)  # of the encoder before its step
    pre, a_tape = forward(nets["actor"], a_seen)
    chosen = np.clip(np.tanh(pre) + noise, -1, 1)
    c_seen, _ = trunk(new["critic_trunk"], h)
    outs = [forward(new[name], np.concatenate([c_seen, chosen], 1)) for name in heads]
    lower = np.argmin([q[:, 0] for q, _ in outs], 0)
    d_action = np.zeros_like(chosen)
    for m, (name, (_, q_tape)) in enumerate(zip(heads, outs, strict=True)):
        _, _, d = inputs_backward(new[name], q_tape, np.where(lower == m, -1.0 / size, 0.0)[:, None], width)
        d_action += d
    d_pre = d_action * (1 - np.tanh(pre) ** 2)  # straight through where the noise was cut off
    actor_grads, d_a_seen, _ = inputs_backward(nets["actor"], a_tape, d_pre, 1)
    d_a_seen = np.concatenate([d_a_seen, _], 1)
    trunk_grads, _ = trunk_backward(nets["actor_trunk"], a_trunk_tape, a_seen, d_a_seen)
    new["actor"] = adams["actor"].descend(nets["actor"], actor_grads)
    new["actor_trunk"] = adams["actor_trunk"].descend(nets["actor_trunk"], trunk_grads)
    mixed = {
        name: [tau * p + (1 - tau) * t for p, t in zip(new[name], targets[name], strict=True)]
        for name in [*heads, "critic_trunk"]
    }
    logged = {
        "critic_loss": loss,
        "critic_grad_norm": norm([g for name in [*heads, "critic_trunk"] for g in grads[name]]),
        "mean_q": np.min(values, 0).mean(),
        "actor_loss": -np.min([q[:, 0] for q, _ in outs], 0).mean(),
        "actor_grad_norm": norm([*actor_grads, *trunk_grads]),
    }
    return new, targets | mixed, logged, np.mean(sizes, 0)


def adam_for_each(nets, rate):
    return {name: Adam(net, rate) for name, net in nets.items()}
