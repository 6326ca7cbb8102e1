"""The strict flags under which everything is tested, and small agents whose compiled programs are shared."""

import hashlib
import importlib.metadata
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault(
    "XLA_FLAGS",  # two devices; compiling, which takes most of the time, without what makes no result better
    "--xla_force_host_platform_device_count=2 "
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * (importlib.metadata.version("jaxlib") < "0.11"),  # unknown since
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("DDPG_JAX_CACHE", str(Path(__file__).parents[1] / ".jax_cache"))  # not the user's

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_once import MOST, share_programs
from tiny_run import finished_run

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
from ddpg_jax.types import Agent, Batch, EnvSpec, Transition

jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


def _refuse(*arguments: Any) -> None:
    raise AssertionError(f"a test reached for the network: {arguments}")


@pytest.fixture(scope="session", autouse=True)
def without_network() -> Iterator[None]:
    """Nothing in this process may look up a name or open a connection; only jobs of several processes do, in theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        patch.setattr(socket.socket, "connect_ex", _refuse)
        patch.setattr(socket, "getaddrinfo", _refuse)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_programs() -> Iterator[None]:
    """Runs of one configuration are traced and compiled once in a process, which is most of what tests wait for."""
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_disks() -> Iterator[None]:
    """Nobody pulls the plug on these tests; those of lost power say what a disk kept by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


WHOLE_RUNS = ("cli", "pages", "system", "training", "xla")
BEGUN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where time is bounded, as in CI, a suite has a share of it; other tests come first from commit to commit."""
    parser.addoption("--seconds", type=float, help="tests that did not begin by then are skipped, and say so")
    parser.addoption("--order", default="", help="a text that draws which files come first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files of whole runs first, which take longest: no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in WHOLE_RUNS)
    if order := config.getoption("--order"):
        items.sort(key=lambda item: hashlib.sha256(f"{order} {item.path.name}".encode()).digest())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that there is no time for any more says so."""
    seconds = item.config.getoption("--seconds")
    if seconds is not None and time.monotonic() - BEGUN > seconds:
        pytest.skip(f"the {seconds:.0f} s for these tests were over: leave --seconds out")


SPEC = EnvSpec(obs_shape=(3,), obs_dtype="float32", action_low=(-2.0, -1.0), action_high=(2.0, 3.0))
BATCH_SIZE = 8


class Tiny(NamedTuple):
    """An agent with its functions compiled; `update` keeps its arguments."""

    agent: Agent
    init: Callable[..., Any]
    observe: Callable[..., Any]
    act: Callable[..., Any]
    policy: Callable[..., Any]
    update: Callable[..., Any]


def _tiny(agent: Agent) -> Tiny:
    return Tiny(agent, *(jax.jit(f) for f in (agent.init, agent.observe, agent.act, agent.policy, agent.update)))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> dj.Run:
    """The tiny run, trained once for the whole session. Read its directory, never write into it."""
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="session")
def spec() -> EnvSpec:
    """Observations of size 3, two actions with unlike bounds."""
    return SPEC


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Tiny]:
    """`(agent) -> Tiny`, or `(**algorithm) -> Tiny` for DDPG with two hidden layers of 16."""

    made: dict[str, Tiny] = {}

    def make(agent: Agent | None = None, exploration: dict[str, Any] | None = None, **algorithm: Any) -> Tiny:
        settings = {"hidden": (16, 16), "batch_size": BATCH_SIZE} | algorithm
        config = load_config(algorithm=settings, exploration=exploration or {})
        if agent is not None:
            return _tiny(agent)
        text = config.model_dump_json()
        made[text] = made.pop(text) if text in made else _tiny(make_agent(config, SPEC))
        if len(made) > MOST:
            del made[next(iter(made))]
        return made[text]

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny: Callable[..., Tiny]) -> Tiny:
    """DDPG with the defaults, compiled once for the whole session."""
    return make_tiny()


@pytest.fixture(scope="session")
def make_batches() -> Callable[..., Batch]:
    """`(updates, seed=0) -> Batch [U, B]` of random transitions, a quarter of them terminal."""

    def make(updates: int, seed: int = 0) -> Batch:
        rng = np.random.default_rng(seed)
        shape = (updates, BATCH_SIZE)

        def normal(*more: int) -> jax.Array:
            return jnp.asarray(rng.normal(size=shape + more), jnp.float32)

        action = jnp.asarray(rng.uniform(-1, 1, size=(*shape, 2)), jnp.float32)
        discount = jnp.where(jnp.arange(BATCH_SIZE) % 4 == 3, 0.0, jnp.full(shape, 0.99))
        data = Transition(normal(3), action, normal(), discount, normal(3))
        return Batch(data, jnp.ones(shape), jnp.zeros(shape, jnp.int32))

    return make


def _plain(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)


def _jit(fn: Callable[..., Any], *args: Any) -> Any:
    return jax.jit(fn)(*args)


def _vmap_of_jit(fn: Callable[..., Any], *args: Any) -> Any:
    """The second of two lanes; the first holds zeros."""
    lanes = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x), x]), args)
    return jax.tree.map(lambda x: x[1], jax.vmap(jax.jit(fn))(*lanes))


@pytest.fixture(params=[_plain, _jit, _vmap_of_jit], ids=["plain", "jit", "vmap_of_jit"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`(fn, *arrays) -> fn(*arrays)`, in each of the three ways."""
    return request.param
