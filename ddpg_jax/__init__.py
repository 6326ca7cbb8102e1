"""ddpg_jax: deterministic policy gradients in JAX, one learner, many seeds side by side.

The names below are imported when first used, so that the command line answers without importing jax.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddpg_jax.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from ddpg_jax.agents.algorithms import make_agent
    from ddpg_jax.config.load import load_config
    from ddpg_jax.config.plugins import register
    from ddpg_jax.config.schema import Config
    from ddpg_jax.envs.device.adapters.gymnax_style import from_gymnax
    from ddpg_jax.envs.device.own import make_device_env
    from ddpg_jax.runs.export.export import export_policy
    from ddpg_jax.runs.inference import evaluate
    from ddpg_jax.runs.policy import load_policy
    from ddpg_jax.runs.record import load_record
    from ddpg_jax.training.device.make_train import make_train
    from ddpg_jax.training.run import Run
    from ddpg_jax.training.train import resume_run, train
    from ddpg_jax.xla.compilation_cache import enable_compilation_cache

__all__ = [
    "Config",
    "Run",
    "enable_compilation_cache",
    "evaluate",
    "export_policy",
    "from_gymnax",
    "load_config",
    "load_policy",
    "load_record",
    "make_agent",
    "make_device_env",
    "make_train",
    "register",
    "resume_run",
    "train",
]

_HOMES = {
    "Config": "config.schema",
    "load_config": "config.load",
    "register": "config.plugins",
    "make_device_env": "envs.device.own",
    "from_gymnax": "envs.device.adapters.gymnax_style",
    "make_agent": "agents.algorithms",
    "make_train": "training.device.make_train",
    "Run": "training.run",
    "train": "training.train",
    "resume_run": "training.train",
    "evaluate": "runs.inference",
    "load_policy": "runs.policy",
    "load_record": "runs.record",
    "export_policy": "runs.export.export",
    "enable_compilation_cache": "xla.compilation_cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ddpg_jax' has no attribute {name!r}")
    return getattr(import_module(f"ddpg_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
