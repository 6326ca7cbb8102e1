"""`README.md`: the model card of an exported policy, with the metadata that a hub of models reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddpg_jax.runs.statistics import centre_name, interval_name, show_return

_USES = {
    "numpy": """## NumPy

`numpy_policy.py` needs `numpy`, `safetensors` and `policy.safetensors`, and nothing else.

```python
from numpy_policy import load_policy

policy = load_policy("policy.safetensors")
action = policy(obs)  # one observation, or many: [N, ...]
```

`python numpy_policy.py` compares it with `golden.npz`.
""",
    "onnx": """## ONNX

One input `obs`, one output `action`, both with a free batch axis.

```python
import onnxruntime

session = onnxruntime.InferenceSession("policy.onnx")
(actions,) = session.run(["action"], {"obs": observations})  # float32 [N, ...]
```
""",
    "stablehlo": """## StableHLO

For CPUs, CUDA GPUs and TPUs; it needs `jax` and `flatbuffers`. A newer jax reads it for about half a year;
after that, export again.

```python
from pathlib import Path

import jax.export

policy = jax.export.deserialize(bytearray(Path("policy.stablehlo").read_bytes()))
actions = policy.call(observations)  # float32 [N, ...]
```

`policy.fun_name` is JSON that says which policy it is.
""",
    "safetensors": """## Weights

`policy.safetensors` and `spec.json` are the archive: the arrays in float32, and under `policy` in `spec.json` the steps
that make an action of an observation. The file of weights holds a copy of `spec.json` in its metadata (`spec`).
""",
}


def make_card(document: Mapping[str, Any], forms: Sequence[str], agreement: Mapping[str, tuple[float, float]]) -> str:
    """The model card.

    Args:
      document: what `spec.json` says.
      forms: that were exported.
      agreement: by form, the largest difference from `load_policy` on the ordinary observations and on all, in units
        of half the action range.
    """
    env, name = document["env"], str(document["algorithm"])
    algorithm = _NAMES.get(name, name)
    parts = [
        _front_matter(document),
        f"# {algorithm} on {env['id']}\n",
        _introduction(document, algorithm),
        _interface(env),
        _layout(env),
        _pictures(document),
        _scores(document),
        "# How to use it\n",
        *(_USES[form] for form in ("numpy", "onnx", "stablehlo", "safetensors") if form in forms),
        _agreement(document, agreement),
    ]
    return "\n".join(part for part in parts if part)


_NAMES = {"ddpg": "DDPG", "td3": "TD3", "d4pg": "D4PG", "fasttd3": "FastTD3"}


def _front_matter(document: Mapping[str, Any]) -> str:
    """The block of metadata; a string of JSON is one of YAML."""
    env, algorithm = json.dumps(document["env"]["id"]), json.dumps(document["algorithm"])
    lines = ["---", "library_name: ddpg_jax", "tags:"]
    lines += [f"- {tag}" for tag in ("reinforcement-learning", "continuous-control", "jax", algorithm, env)]
    run = document["run"]
    if run is not None:
        lines += ["model-index:", f"- name: {algorithm}", "  results:", "  - task:"]
        lines += ["      type: reinforcement-learning", "      name: reinforcement-learning"]
        lines += ["    dataset:", f"      name: {env}", f"      type: {env}", "    metrics:"]
        scores = run["mean_return_of_each_seed"]
        named = {f"mean return of seed {seed}": score for seed, score in scores.items()}
        for name, value in {**named, **_centre(run)}.items():
            lines += ["    - type: mean_reward", f"      name: {name}", f"      value: {value}"]
    return "\n".join([*lines, "---\n"])


def _centre(run: Mapping[str, Any]) -> dict[str, float]:
    """The centre of the seeds by its name; nothing of one seed."""
    seeds = len(run["mean_return_of_each_seed"])
    return {f"{centre_name(seeds)} of {seeds} seeds": run["interquartile_mean"]} if seeds > 1 else {}


def _introduction(document: Mapping[str, Any], algorithm: str) -> str:
    version, steps = document["versions"]["ddpg-jax"], document["training_steps"]
    which = {"final": "as it was at the end", "best": "as it was at the run's best evaluation"}[document["which"]]
    after = "" if steps is None else f", after {steps:,} environment steps"
    return (
        f"The policy of seed {document['seed']} of a run of {algorithm} by ddpg_jax {version}, {which}{after}. The "
        "whole configuration of the run is in `spec.json`, under `config`.\n"
    )


def _interface(env: Mapping[str, Any]) -> str:
    bounds = [f"[{low:g}, {high:g}]" for low, high in zip(env["action_low"], env["action_high"], strict=True)]
    shown = bounds[0] if len(set(bounds)) == 1 else ", ".join(bounds)
    made = {"obs_layout", "obs_stack"} & env.keys()
    given = "put together as said below" if made else "as the environment gives them"
    return (
        f"It takes observations {given}, {_form(env, 'obs')}, and gives actions in the environment's units, "
        f"{_form(env, 'action')}, bounds {shown}, without noise. Normalising, squashing, scaling and clipping are "
        "inside.\n"
    )


def _layout(env: Mapping[str, Any]) -> str:
    """Where the arrays of an observation lie in the vector."""
    if "obs_layout" not in env:
        return ""
    lines = ["# How an observation is put together\n", "| numbers | array | shape | dtype |", "|---|---|---|---|"]
    for part in env["obs_layout"]:
        path = "".join(f"[{json.dumps(key)}]" for key in part["path"]) or "all of it"
        lines.append(f"| {part['start']} to {part['stop'] - 1} | `{path}` | {tuple(part['shape'])} | {part['dtype']} |")
    return "\n".join(
        [
            *lines,
            "\nThe arrays that the environment gives, each in C order, are joined in this order to one vector. "
            "`numpy_policy.py` takes both, that vector and the observation as the environment gives it.\n",
        ]
    )


def _pictures(document: Mapping[str, Any]) -> str:
    """How pictures are stacked, and where the numbers beside them lie."""
    env = document["env"]
    if "obs_stack" not in env:
        return ""
    stack, rows, width, channels = env["obs_shape"]
    seen, count = document["config"]["env"].get("pixels") or {}, env["proprioception"]
    made = f"`env.pixels` in `spec.json`, under `config`, says how each is made ({seen})." if seen else ""
    text = (
        f"# How an observation is put together\n\nIt is the last {stack} pictures of the episode, the oldest first; "
        f"the first picture of an episode stands in for those before it. {made}\n"
    )
    if not count:
        return text
    filled = -(-4 * count // (width * channels))
    return text + (
        f"\nThe last {filled} of its {rows} rows are no picture: they hold the {count} numbers that the environment "
        "observes beside it, as bytes of float32, and zeros.\n\n```python\nimport numpy as np\n\n"
        f"rows = np.zeros({filled * width * channels}, np.uint8)\n"
        f'rows[:{4 * count}] = np.asarray(numbers, "<f4").view(np.uint8)  # float32 [{count}]\n'
        f"picture = np.concatenate([picture, rows.reshape({filled}, {width}, {channels})])  # one of the {stack}\n```\n"
    )


def _form(env: Mapping[str, Any], what: str) -> str:
    shape = ", ".join(map(str, env[f"{what}_shape"]))
    return f"{env[f'{what}_dtype']} of shape ({shape}{',' if len(env[f'{what}_shape']) == 1 else ''})"


def _scores(document: Mapping[str, Any]) -> str:
    run, which = document["run"], document["which"]
    if run is None:
        return "The run had not come to its end when this was exported, so no score is known.\n"
    scores, own = run["mean_return_of_each_seed"], str(document["seed"])
    episodes = document["score"]["episodes"] if document["score"] else None
    lines = ["# Scores\n", f"| seed | mean return of the {which} evaluation |", "|---|---|"]
    lines += [
        f"| {seed}{' (this policy)' if seed == own else ''} | {show_return(score)} |" for seed, score in scores.items()
    ]
    interval = run["interval"]
    within = f" [{', '.join(map(show_return, interval))}]" if interval else ""
    lines += [f"| {name}{within} | {show_return(score)} |" for name, score in _centre(run).items()]
    notes = [f"{episodes} episodes a seed." if episodes else f"Seed {own} diverged, so it has no score."]
    if interval:
        notes.append(f"In brackets their {interval_name(len(scores))}.")
    if which == "best":
        notes.append("The best evaluation was chosen by these same episodes, so it flatters.")
    if not run["complete"]:
        notes.append("The run was stopped early.")
    return "\n".join([*lines, "", " ".join(notes), ""])


def _agreement(document: Mapping[str, Any], agreement: Mapping[str, tuple[float, float]]) -> str:
    text = (
        "## What was checked\n\n`golden.npz` holds 600 ordinary observations, 400 extreme ones (0, up to 1e6 and more),"
        " and the actions that `ddpg_jax.load_policy` gives.\n\n"
    )
    if agreement:
        text += "| largest difference, in units of half the action range | ordinary | all |\n|---|---|---|\n"
        text += "".join(f"| {form} | {usual:.0e} | {most:.0e} |\n" for form, (usual, most) in agreement.items()) + "\n"
    if document["precision"] == "bfloat16":
        text += (
            "The run multiplied factors rounded to bfloat16, and so do all forms; where a factor lies between two "
            "numbers of bfloat16, the last bit of float32 decides, so differences are larger than of float32. "
        )
    return text + f"Each file says in its metadata to which `spec.json` it belongs: `{document['sha256']}`.\n"
