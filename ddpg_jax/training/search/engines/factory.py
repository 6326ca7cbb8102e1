"""The engine that a configuration asks for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.engine import Engine, EngineConfig, Task


def make_engine(config: EngineConfig, folder: Path) -> Engine:
    """Makes an engine; what it needs is imported only now.

    Args:
      config: of `[engine]`.
      folder: of the sweep, where scripts of a cluster are written.

    Raises:
      ConfigError: what it needs is not installed, not reached, or too little; or it is only written as text.
    """
    if config.kind == "ray":
        from ddpg_jax.training.search.engines.ray import RayEngine

        return RayEngine(config)
    if config.kind == "slurm":
        from ddpg_jax.training.search.engines.slurm import SlurmEngine

        return SlurmEngine(config, folder)
    if config.kind == "kubernetes":
        raise ConfigError(
            'engine.kind = "kubernetes" is written as text and not run; print it with --dry-run and hand it to kubectl'
        )
    from ddpg_jax.training.search.engines.local import LocalEngine

    return LocalEngine(config)


def render(config: EngineConfig, tasks: Sequence[Task], folder: Path) -> str:
    """What an engine would be given, as text: the script or the job of a cluster, or command lines.

    Args:
      config: of `[engine]`.
      tasks: at least one.
      folder: of the sweep.

    Raises:
      ConfigError: something that the text needs is not named.
    """
    if config.kind == "slurm":
        from ddpg_jax.training.search.engines import slurm

        return slurm.render(tasks, config, folder)
    if config.kind == "kubernetes":
        from ddpg_jax.training.search.engines import kubernetes

        return kubernetes.render(tasks, config)
    return "\n".join(shlex.join(task.command) for task in tasks)
