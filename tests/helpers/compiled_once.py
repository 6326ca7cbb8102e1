"""Programs that are traced and compiled once in a process, for all runs of one configuration that tests make in it."""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.host.rollout import jit_policy, jit_value
from ddpg_jax.training import factory
from ddpg_jax.training.device import compile as device
from ddpg_jax.training.device import program
from ddpg_jax.training.device.compile import compile_program
from ddpg_jax.training.factory import agent_by_numbers
from ddpg_jax.training.host import compile as host
from ddpg_jax.training.host import loop
from ddpg_jax.training.host.compile import compile_programs
from ddpg_jax.training.sweep import batches, run
from ddpg_jax.types import Agent, EnvSpec

REPLACEABLE: tuple[tuple[ModuleType, str], ...] = (
    *((factory, "device_env"), (run, "device_env"), (program, "find_make_agent")),
    *((host, "compile_all"), (device, "compile_all"), (device, "compiler_options")),
)
"""What tests put other functions in the place of, to see what becomes of a run: theirs is compiled anew."""

MOST = 24
"""Parts that are kept, of which a run takes up to five: those of one file of tests, or two."""


def share_programs(patch: pytest.MonkeyPatch) -> None:
    """Has `train` take its programs from an earlier run of the same configuration, number of lanes and modes of jax.

    Programs on somebody's own parts are made anew, as are those that a test asks for by itself.
    """
    kept: dict[tuple[Any, ...], Any] = {}
    own = [getattr(module, name) for module, name in REPLACEABLE]

    def once(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Of threads only the first, as what the host loop calls is not for several runs at a time."""
        in_place = all(getattr(*where) is function for where, function in zip(REPLACEABLE, own, strict=True))
        if not in_place or threading.current_thread() is not threading.main_thread():
            return make()
        kept[key] = kept.pop(key) if key in kept else make()
        if len(kept) > MOST:
            del kept[next(iter(kept))]
        return kept[key]

    def known(part: Any) -> bool:
        return any(part is each for each in kept.values())

    def agent_once(config: Config, spec: EnvSpec) -> Agent:
        if config.algorithm.make_agent is not None:
            return make_agent(config, spec)
        return once((_text(config), spec), lambda: make_agent(config, spec))

    def agents_once(config: Config, spec: EnvSpec) -> Any:
        if config.algorithm.make_agent is not None:
            return agent_by_numbers(config, spec)
        return once(("by numbers", _text(config), spec), lambda: agent_by_numbers(config, spec))

    def jitted_once(jit: Callable[[Agent], Any]) -> Callable[[Agent], Any]:
        return lambda agent: once((jit, agent, _modes()), lambda: jit(agent)) if known(agent) else jit(agent)

    def host_once(config: Config, agent: Agent, ring: Any, transfer: Any, stop: Any, agent_of: Any, hyper: Any) -> Any:
        def make() -> Any:
            return compile_programs(config, agent, ring, transfer, stop, agent_of, hyper)

        if not known(agent) or not (agent_of is None or known(agent_of)):
            return make()
        numbers = tuple((path, np.asarray(each).tobytes()) for path, each in hyper.items())
        return once((agent, agent_of, numbers, _text(config), config.seed_list, type(ring), _modes()), make)

    def device_once(config: Config, env: Any, keys: Any, hyper: Any, mesh: Any, stop: Any) -> Any:
        def make() -> Any:
            return compile_program(config, env, keys, hyper, mesh, stop)

        if config.algorithm.make_agent is not None or ":" in config.env.id.removeprefix("jax:"):
            return make()
        numbers = tuple((path, np.asarray(each).dtype) for path, each in hyper.items())
        return once((_text(config), len(keys), numbers, mesh, _modes()), make)

    patch.setattr(factory, "make_agent", agent_once)
    patch.setattr(factory, "agent_by_numbers", agents_once)
    patch.setattr(factory, "jit_policy", jitted_once(jit_policy))
    patch.setattr(factory, "jit_value", jitted_once(jit_value))
    patch.setattr(factory, "compile_program", device_once)
    patch.setattr(batches, "compile_program", device_once)
    patch.setattr(loop, "compile_programs", host_once)


def _text(config: Config) -> str:
    """All that a program may depend on."""
    return config.model_dump_json(exclude={"checkpoint", "logging", "seeds"})


def _modes() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in jax.config.values.items()))
