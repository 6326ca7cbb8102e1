"""Kubernetes: an Indexed Job as text, one index for each task, to be handed to `kubectl apply`.

It was not run on a cluster: no Kubernetes could be had where this was written. The text is checked against the types of
the `kubernetes` client for Python. Exit codes are judged by the cluster itself, by the first rule that fits: an evicted
pod or 75 counts as nothing and the index starts again, 2, 3 and 4 are results and end the index, all else may come
`engine.retries` times more.
"""

from __future__ import annotations

import json
import os.path
import shlex
from collections.abc import Sequence
from typing import Any

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.engine import STOPPED, EngineConfig, Task, log_path

GRACE_SECONDS = 180
"""From SIGTERM to the end of a pod, for a run to save."""

_START = """printf '\\n--- start on %s, %s\\n' "$(hostname)" "$(date)" >>"$log\""""

_RESULTS = (2, 3, 4)


def render(tasks: Sequence[Task], config: EngineConfig, name: str = "ddpg-jax") -> str:
    """The job of some tasks.

    Args:
      tasks: at least one; their directories lie on the volume, which is mounted at what they have in common.
      config: of `[engine]`.
      name: of the job; letters, digits and dashes.

    Returns:
      JSON, which kubectl takes as it takes YAML.

    Raises:
      ConfigError: the image or the volume is not named.
    """
    return json.dumps(job(tasks, config, name), indent=2) + "\n"


def job(tasks: Sequence[Task], config: EngineConfig, name: str = "ddpg-jax") -> dict[str, Any]:
    """The job of some tasks as nested values, with the names of the Kubernetes API `batch/v1`; see `render`."""
    if config.image is None or config.volume is None:
        missing = [field for field in ("image", "volume") if getattr(config, field) is None]
        raise ConfigError(f'engine.kind = "kubernetes" needs engine.{" and engine.".join(missing)}')
    shared = _common_folder(tasks)
    resources: dict[str, Any] = {"requests": {"cpu": str(config.cores_per_process or 1)}}
    if gpus := int(config.gpus_per_process or 0):
        resources["limits"] = {"nvidia.com/gpu": str(gpus)}
    container = {
        "name": "task",
        "image": config.image,
        "command": ["/bin/sh", "-c", _script(tasks)],
        "resources": resources,
        "volumeMounts": [{"name": "runs", "mountPath": shared}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": config.volume}}],
    }
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": len(tasks),
        "parallelism": len(tasks),
        "backoffLimitPerIndex": config.retries,
        "maxFailedIndexes": len(tasks),
        "podFailurePolicy": {"rules": _rules()},
        "template": {"spec": pod},
    }
    metadata = {"name": name, "namespace": config.namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _rules() -> list[dict[str, Any]]:
    """What becomes of an index whose pod failed; the first rule that fits counts."""

    def on_codes(action: str, codes: Sequence[int]) -> dict[str, Any]:
        return {"action": action, "onExitCodes": {"containerName": "task", "operator": "In", "values": list(codes)}}

    evicted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [evicted, on_codes("Ignore", [STOPPED]), on_codes("FailIndex", _RESULTS)]


def _script(tasks: Sequence[Task]) -> str:
    """A shell's script that becomes the program of its index."""
    lines = ['case "$JOB_COMPLETION_INDEX" in']
    for number, task in enumerate(tasks):
        log = shlex.quote(str(log_path(task.directory.absolute())))
        lines.append(f"{number}) log={log}; set -- {shlex.join(task.command)} ;;")
    lines += ["esac", 'mkdir -p "$(dirname "$log")"']
    lines += [_START, 'exec "$@" >>"$log" 2>&1']
    return "\n".join(lines)


def _common_folder(tasks: Sequence[Task]) -> str:
    """The folder that holds the directories of all tasks."""
    return os.path.commonpath([task.directory.absolute().parent for task in tasks])
