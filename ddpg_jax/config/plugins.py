"""Parts of one's own that a configuration names: environments, algorithms, networks, loggers and callbacks.

A name is looked up in four places: what was handed over to the call that is going on, what was registered in this
process, entry points of installed packages, and last, for `module:name`, that module, which is imported.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import Any, Literal, TypeAlias, get_args

from ddpg_jax.errors import ConfigError, printable

Kind: TypeAlias = Literal["env", "agent", "networks", "logger", "callback", "sink"]
"""What a part is: `env`, a function that makes an environment, or a `DeviceEnv`; `agent`, `(config, spec) -> Agent`;
`networks`, `(config, spec, outputs) -> (actor, critic)`; `logger` and `sink`, a class or function without arguments,
which makes one; `callback`, the function itself."""

GROUP = "ddpg_jax."
"""Entry points of a kind stand in the group of this name and the kind, as `ddpg_jax.env`."""

_REGISTERED: dict[tuple[Kind, str], Any] = {}
_HANDED_OVER: ContextVar[Mapping[tuple[Kind, str], Any]] = ContextVar("_HANDED_OVER", default={})  # noqa: B039  never changed in place
_TRUSTED: ContextVar[bool] = ContextVar("_TRUSTED", default=False)


def register(kind: Kind, name: str, part: Any) -> None:
    """Makes a part known by a name in this process, so that a configuration may name it.

    Args:
      kind: what it is.
      name: without a colon.
      part: see `Kind`; a later one of the same name takes its place.

    Raises:
      ValueError: there is no such kind, or the name has a colon.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(get_args(Kind))}")
    if ":" in name or not name:
        raise ValueError(f"name={name!r}: expected a name without a colon; module:name needs no registration")
    _REGISTERED[kind, name] = part


def find(kind: Kind, name: str) -> Any | None:
    """The part of a name without importing what the name says; None: there is none."""
    handed = _HANDED_OVER.get()
    if (kind, name) in handed:
        return handed[kind, name]
    if (kind, name) in _REGISTERED:
        return _REGISTERED[kind, name]
    found = [] if ":" in name else list(entry_points(group=GROUP + kind, name=name))
    return found[0].load() if found else None


def load(kind: Kind, name: str, field: str) -> Any:
    """The part of a name; for `module:name`, of that module.

    Args:
      kind: what it is.
      name: as the configuration has it.
      field: where it stands there, for messages.

    Raises:
      ConfigError: it is not there, and how to bring it.
    """
    part = find(kind, name)
    if part is not None:
        return part
    module, colon, path = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{field}={printable(name)!r}: no {kind} of this name is known{hint}; one of your own is named "
            "module:name, or registered by a module that --plugin names (in Python, that you import)"
        )
    if "<" in path:
        raise ConfigError(
            f"{field}={printable(name)!r} was handed over in Python and cannot be imported: hand it over again, as "
            f"{'env' if kind == 'env' else f'make_{kind}'}=..."
        )
    return _import(name, module, path, field)


def _import(name: str, module: str, path: str, field: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0])
        why = f"there is no module {module} here; change to its directory or install it" if missing else str(error)
        raise ConfigError(f"{field}={printable(name)!r} cannot be imported: {printable(why)}") from error
    for step in path.split("."):
        if not hasattr(found, step):
            near = difflib.get_close_matches(step, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{field}={printable(name)!r}: {module} has no {printable(step)}{hint}")
        found = getattr(found, step)
    return found


def names(kind: Kind) -> list[str]:
    """The names without a colon that are known of a kind."""
    own = [name for each, name in (*_HANDED_OVER.get(), *_REGISTERED) if each == kind]
    return sorted({*own, *(point.name for point in entry_points(group=GROUP + kind))})


def name_of(part: Callable[..., Any]) -> str:
    """The name of a function or class that was handed over, as it could be imported: `module:name`."""
    inner = getattr(part, "func", part)  # of a partial
    module = getattr(inner, "__module__", None) or type(part).__module__
    path = getattr(inner, "__qualname__", None) or f"<{type(part).__qualname__}>"
    return f"{module}:{path}"


@contextmanager
def hand_over(parts: Mapping[tuple[Kind, str], Any]) -> Generator[None]:
    """Within, these names stand for these parts."""
    token = _HANDED_OVER.set({**_HANDED_OVER.get(), **parts})
    try:
        yield
    finally:
        _HANDED_OVER.reset(token)


def was_handed_over(name: str) -> bool:
    """Whether the call that is going on was given a part of this name."""
    return any(name.removeprefix("jax:") == each for _, each in _HANDED_OVER.get())


@contextmanager
def allow_imports(allowed: bool = True) -> Generator[None]:
    """Within, files may name modules to import too."""
    token = _TRUSTED.set(allowed or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def imports_allowed() -> bool:
    """Whether files may name modules to import."""
    return _TRUSTED.get()


def import_plugins(modules: Iterable[str]) -> None:
    """Imports modules for what they register, with gymnasium or here.

    Raises:
      ConfigError: one cannot be imported.
    """
    for module in modules:
        if not re.fullmatch(r"\w+(\.\w+)*", module):
            raise ConfigError(f"--plugin {printable(module)!r} is not the name of a module, as my_package.my_module")
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it raises
            raise ConfigError(f"--plugin {module} cannot be imported: {type(error).__name__}: {error}") from error
