"""`spec.json`: what a policy is, of which run, how good, and how its actions are computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ddpg_jax.runs.result import package_versions

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.runs.export.golden import Golden
    from ddpg_jax.runs.export.steps import Step
    from ddpg_jax.types import EnvSpec

FORMAT = "ddpg_jax policy 1"


def describe(
    config: Config,
    spec: EnvSpec,
    seed: int,
    which: str,
    golden: Golden,
    steps: list[Step] | None,
    result: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `spec.json` says.

    Args:
      config: of the run.
      spec: of its environment.
      seed: the seed whose policy it is.
      which: "final" or "best".
      golden: for the shape and dtype of actions.
      steps: how actions are computed; None: by a network that only the run's own code knows.
      result: the run's `result.json`; None: it has not come to its end.
    """
    env = {
        "id": config.env.id,
        "obs_shape": list(spec.obs_shape),
        "obs_dtype": spec.obs_dtype,
        "action_shape": list(golden.action.shape[1:]),
        "action_dtype": golden.action.dtype.name,
        "action_low": list(spec.action_low),
        "action_high": list(spec.action_high),
        **_put_together(spec),
    }
    found = {
        "format": FORMAT,
        "env": env,
        "algorithm": config.algorithm_name,
        "seed": seed,
        "which": which,
        **_reached(seed, which, result),
        "precision": config.precision,
        "policy": steps,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "config": config.model_dump(mode="json"),
    }
    return {**found, "sha256": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()}


def _put_together(spec: EnvSpec) -> dict[str, Any]:
    """What an observation is made of, where it is not one vector as the environment gives it."""
    found: dict[str, Any] = {}
    if spec.layout:
        found["obs_layout"] = [{**part._asdict(), "path": list(part.path)} for part in spec.layout]
    if spec.stack:
        found |= {"obs_stack": spec.stack, "proprioception": spec.proprioception}
    return found


def _reached(seed: int, which: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """How long the policy was trained and what it scored; None where the run left no word of it."""
    if result is None:
        return {"training_steps": None, "score": None, "run": None}
    summary = result[which]
    scores = dict(zip(map(str, result["seeds"]), summary["per_seed"], strict=True))
    returns = summary["returns"]
    run = {
        "complete": result["complete"],
        "mean_return_of_each_seed": scores,
        "interquartile_mean": summary["interquartile_mean"],
        "interval": summary["interval"],
        "confidence": summary.get("confidence", 0.95),
        "env_steps_per_seed": result["env_steps_per_seed"],
        "config_sha256": result.get("config_sha256"),
        "commit": result.get("commit"),
    }
    score = None
    if str(seed) in scores:
        score = {"mean_return": scores[str(seed)], "episodes": len(returns[0])}
    return {"training_steps": summary["step"], "score": score, "run": run}


def metadata(document: Mapping[str, Any]) -> dict[str, str]:
    """What stands inside each file of another form: the short part of `spec.json`, as text by name, and its hash."""
    short = ("format", "env", "algorithm", "seed", "which", "training_steps", "score", "precision", "versions")
    said = {name: document[name] for name in short} | {"spec_sha256": document["sha256"]}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
