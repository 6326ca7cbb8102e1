"""Four updates of each learner, beside the same four by other codes: equal weights, equal batches, equal noise.

Three steps, as the others' environment need not hold jax:

    python benchmarks/parity.py inputs FILE [--hidden 24]      weights, batches and noise, by ddpg_jax
    python benchmarks/parity.py peers FILE                     adds what the others make of them; needs torch,
                                                               stable-baselines3, torchrl and tianshou
    python benchmarks/parity.py compare FILE                   the largest differences of weights, as a table

`tests/agents/parity.npz` is such a file with hidden layers of 24; `tests/agents/test_parity.py` compares with it, and
docs/fidelity.md shows the figures. Files of other widths are not kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

OBS, ACTION, BATCH, UPDATES, SEED = 5, 2, 32, 4, 3
ALGORITHM: dict[str, Any] = {
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "tau": 0.02,
    "gamma": 0.99,
    "batch_size": BATCH,
}
SMOOTHED: dict[str, Any] = {"target_noise": 0.2, "target_noise_clip": 0.5, "policy_delay": 2}
ATOMS: dict[str, Any] = {"v_min": -3.0, "v_max": 3.0, "num_atoms": 21}
CASES: dict[str, dict[str, Any]] = {
    "ddpg": {"name": "ddpg"},
    "td3": {"name": "td3", **SMOOTHED},
    "d4pg": {"name": "d4pg", **ATOMS},
    "fasttd3": {"name": "fasttd3", **SMOOTHED, **ATOMS, "normalize_observations": False},
    "ddpg_batch_norm": {"name": "ddpg", "normalization": "batch", "action_layer": 1},
}
"""The section `[algorithm]` of each case, beside `ALGORITHM` and the width."""

WITHOUT_EFFECT = (
    *(f"{network}/params/BatchNorm_0/bias" for network in ("actor", "critic")),
    *(f"{network}/params/Dense_{i}/bias" for network, i in (("actor", 0), ("actor", 1), ("critic", 0))),
)
"""Batch normalisation takes these away again: their gradient is 0, and Adam makes steps out of what rounding leaves."""


def make_case(case: str, hidden: int) -> Any:
    """The agent of a case."""
    from ddpg_jax.agents.algorithms import make_agent
    from ddpg_jax.config.load import load_config
    from ddpg_jax.types import EnvSpec

    widths = {"hidden": (hidden, hidden), "critic_hidden": (hidden, hidden)}
    config = load_config(algorithm={**ALGORITHM, **CASES[case], **widths})
    return make_agent(config, EnvSpec((OBS,), "float32", (-1.0,) * ACTION, (1.0,) * ACTION))


def make_inputs(hidden: int) -> dict[str, np.ndarray]:
    """Initial weights of each case, batches, and the noise of each update before it is scaled and clipped."""
    import jax

    from ddpg_jax.rng import run_keys, stream_key
    from ddpg_jax.runs.pytrees import to_host

    rng, key = np.random.default_rng(SEED), run_keys([SEED])[0]
    normal = (UPDATES, BATCH)
    data = {
        "obs": rng.normal(size=(*normal, OBS)),
        "action": rng.uniform(-1, 1, (*normal, ACTION)),
        "reward": rng.normal(size=normal),
        "terminated": rng.random(normal) < 0.1,
        "next_obs": rng.normal(size=(*normal, OBS)),
    }
    keys = [jax.random.split(stream_key(key, "critic", step), BATCH) for step in range(UPDATES)]
    data["noise"] = np.stack([jax.vmap(lambda each: jax.random.normal(each, (ACTION,)))(step) for step in keys])
    found = {f"data/{name}": values.astype(np.float32) for name, values in data.items()}
    for case in CASES:
        state = make_case(case, hidden).init(key)
        found |= {f"init/{case}/{name}": leaf for name, leaf in to_host(state.params, "params").items()}
    return found | {"hidden": np.array(hidden)}


def update_ours(case: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights and targets after all updates, by name."""
    import jax
    import jax.numpy as jnp

    from ddpg_jax.rng import run_keys
    from ddpg_jax.runs.pytrees import from_host, to_host
    from ddpg_jax.types import Batch, Transition

    agent, key = make_case(case, int(inputs["hidden"])), run_keys([SEED])[0]
    state = agent.init(key)
    params = from_host(state.params, part(inputs, f"init/{case}"), "params", "the file")
    state = state._replace(params=jax.tree.map(jnp.array, params), target_params=jax.tree.map(jnp.array, params))
    data = {name: jnp.asarray(values) for name, values in part(inputs, "data").items()}
    transition = Transition(
        data["obs"], data["action"], data["reward"], jnp.float32(0.99) * (1.0 - data["terminated"]), data["next_obs"]
    )
    shape = UPDATES, BATCH
    state, _, _ = jax.jit(agent.update)(state, Batch(transition, jnp.ones(shape), jnp.zeros(shape, jnp.int32)), key)
    return to_host(state.params, "params") | to_host(state.target_params, "target_params")


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays below a name, by the rest of their names."""
    return {name.removeprefix(f"{prefix}/"): x for name, x in arrays.items() if name.startswith(f"{prefix}/")}


def peers_of(arrays: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Which codes have made which cases, as (case, peer)."""
    return sorted({tuple(name.split("/")[1:3]) for name in arrays if name.startswith("peer/")})  # pyright: ignore[reportReturnType]


def largest_difference(case: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Of all weights and targets that a peer has, but for `WITHOUT_EFFECT`."""
    counted = [name for name in theirs if not (CASES[case].get("normalization") and name.endswith(WITHOUT_EFFECT))]
    return max(float(np.abs(ours[name].astype(np.float64) - theirs[name]).max()) for name in counted)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("inputs", "peers", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--hidden", type=int, default=24)
    options = parser.parse_args()
    if options.step == "inputs":
        np.savez_compressed(options.file, **make_inputs(options.hidden))  # pyright: ignore[reportArgumentType]
        return
    arrays = dict(np.load(options.file))
    if options.step == "peers":
        from parity_peers import update_peers

        np.savez_compressed(options.file, **{**arrays, **update_peers(arrays)})  # pyright: ignore[reportArgumentType]
        return
    ours = {case: update_ours(case, arrays) for case in CASES}
    for case, peer in peers_of(arrays):
        print(f"{case:16} {peer:10} {largest_difference(case, ours[case], part(arrays, f'peer/{case}/{peer}')):.1e}")


if __name__ == "__main__":
    main()
