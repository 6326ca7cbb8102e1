"""A policy that ddpg_jax trained, in NumPy: observations and actions in the units of the environment.

It needs numpy, safetensors, and policy.safetensors beside it; `python numpy_policy.py` compares it with golden.npz:

    import gymnasium
    from numpy_policy import load_policy

    policy = load_policy("policy.safetensors")
    env = gymnasium.make(policy.spec["env"]["id"])
    obs, _ = env.reset(seed=0)
    ended = False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(policy(obs))  # or many: [N, *O] -> [N, *A]
        ended = terminated or truncated
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open


class Policy(NamedTuple):
    """What a policy is made of: `spec` as in spec.json, and its arrays by name, in float64."""

    spec: dict[str, Any]
    arrays: dict[str, Any]

    def __call__(self, obs: Any) -> Any:
        """The action of one observation `[*O]`, or those of many, `[N, *O] -> [N, *A]`."""
        env = self.spec["env"]
        obs, shape = np.asarray(_as_vectors(obs, env), env["obs_dtype"]), tuple(env["obs_shape"])
        if obs.shape == shape:
            return self(obs[None])[0]
        if obs.shape[1:] != shape or not obs.ndim:
            raise ValueError(f"expected observations of shape {shape}, or many of them, came {obs.shape}")
        u = (_run(self.spec["policy"], self.arrays, obs.astype(np.float64)) + 1.0) * 0.5
        low, high = np.array(env["action_low"]), np.array(env["action_high"])
        action = (low * (1.0 - u) + high * u).clip(low, high)
        return action.astype(env["action_dtype"]).reshape(len(obs), *env["action_shape"])


def load_policy(path: Any = "policy.safetensors") -> Policy:
    """Reads a policy from its file of weights, which holds its description too."""
    with safe_open(str(path), "np") as file:
        arrays = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
        return Policy(json.loads(file.metadata()["spec"]), arrays)


def _as_vectors(obs: Any, env: dict[str, Any]) -> Any:
    """Observations as the environment gives them, arrays by their keys, as vectors; vectors stay as they are."""
    arrays = list[Any]()
    for part in env.get("obs_layout", ()):
        array = obs
        for key in part["path"]:
            if not isinstance(array, (dict, tuple)):
                return obs
            array = array[int(key) if isinstance(array, tuple) else key]
        shape, cut = np.shape(array), max(0, np.ndim(array) - len(part["shape"]))
        if shape[cut:] != tuple(part["shape"]):
            return obs
        arrays.append(np.reshape(array, (*shape[:cut], part["stop"] - part["start"])))
    return np.concatenate(arrays, -1) if arrays else obs


def _run(steps: list[dict[str, Any]], arrays: dict[str, Any], x: Any) -> Any:
    for step in steps:
        x = _OPS[step["op"]](x, {k: arrays.get(v, v) if isinstance(v, str) else v for k, v in step.items()}, arrays)
    return x


def _dense(x: Any, p: dict[str, Any], arrays: dict[str, Any]) -> Any:
    factors = (x, p["kernel"])
    return np.matmul(*(map(_bfloat16, factors) if "factors" in p else factors)) + p.get("bias", 0.0)


def _bfloat16(x: Any) -> Any:
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def _layer_norm(x: Any, p: dict[str, Any], arrays: dict[str, Any]) -> Any:
    return _batch_norm(x, {"mean": x.mean(-1, keepdims=True), "variance": x.var(-1, keepdims=True), **p}, arrays)


def _batch_norm(x: Any, p: dict[str, Any], arrays: dict[str, Any]) -> Any:
    return (x - p["mean"]) / np.sqrt(p["variance"] + p["epsilon"]) * p["scale"] + p["bias"]


_OPS = {
    "normalize": lambda x, p, arrays: np.clip(
        (x - p["mean"]) / (np.sqrt(p["variance"]) + p["epsilon"]), -p.get("clip", np.inf), p.get("clip", np.inf)
    ),
    "dense": _dense,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "rms_norm": lambda x, p, arrays: x / np.sqrt((x**2).mean(-1, keepdims=True) + p["epsilon"]) * p["scale"],
    "residual": lambda x, p, arrays: x + _run(p["steps"], arrays, x),
    "blend": lambda x, p, arrays: x + p["share"] * p["by"] * (_run(p["steps"], arrays, x) - x),
    "scale": lambda x, p, arrays: x * p["scale"] * p["by"],
    "append": lambda x, p, arrays: np.pad(x, ((0, 0), (0, 1)), constant_values=p["value"]),
    "add": lambda x, p, arrays: x + p["value"],
    "unit": lambda x, p, arrays: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-8),
    "relu": lambda x, p, arrays: np.maximum(x, 0.0),
    "elu": lambda x, p, arrays: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x, p, arrays: x * 0.5 * (1.0 + np.tanh(0.5 * x)),
    "tanh": lambda x, p, arrays: np.tanh(x),
}

if __name__ == "__main__":
    _here = Path(__file__).parent
    _policy, _golden = load_policy(_here / "policy.safetensors"), np.load(_here / "golden.npz")
    _half = (np.array(_policy.spec["env"]["action_high"]) - _policy.spec["env"]["action_low"]) / 2
    _off = np.abs(_policy(_golden["obs"]).astype(np.float64) - _golden["action"]).reshape(-1, len(_half)) / _half
    _usual = _off[: int(_golden["ordinary"])].max()
    print(f"differences in units of half the action range: at most {_usual:.1e} ordinary, {_off.max():.1e} all")
