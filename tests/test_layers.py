"""Who may import whom, and what stands nowhere, read from the syntax tree of every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddpg_jax

PACKAGE = Path(ddpg_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    0: ("__about__", "types", "errors"),
    1: ("rng", "config", "equations"),
    2: ("xla", "envs"),
    3: ("replay", "agents"),
    4: ("agents.policy_gradient", "agents.factory"),
    5: ("agents.recurrent", "agents.pixels", "agents.embeddings", "agents.unrolled", "agents.algorithms"),
    6: ("runs",),
    7: ("training.host", "training.device", "training.report", "training.schedule"),
    8: ("training",),
    9: ("cli", "testing", "__main__"),
}
"""What a module imports stands on its own floor or below; `rooms_in_circles` looks after those of one floor."""

BORDERS = (
    (("training.host", "training.device"), "runs", ("runs.pytrees",)),
    (("envs", "replay", "agents"), "config", ()),
    (("xla",), "envs", ()),
)
"""(importers, room, which of its modules they may import all the same)."""

READS_CONFIG = ("envs.factory", "envs.device.backends", "replay.factory", "agents.factory", "agents.algorithms")
"""Modules of `envs`, `replay` and `agents` that read the configuration; all others take plain arguments."""

LAYER_OF = {f"ddpg_jax.{name}": layer for layer, names in LAYERS.items() for name in names}

BY_NAME = ("import_module", "__import__")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "ruamel"}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path) for path in FILES}


def layer_of(module: str) -> int:
    """The layer of the longest name in the table that the module is, or is inside of."""
    while module not in LAYER_OF:
        module, dot, _ = module.rpartition(".")
        assert dot, "no layer is given to the module in LAYERS"
    return LAYER_OF[module]


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported, anywhere in the module: `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_NAME:
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _module_of(name: str) -> str:
    """The module that an imported name is, or is defined in."""
    return name if name in MODULES else name.rpartition(".")[0]


def _within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def layer_faults(module: str, source: str) -> list[str]:
    """Imports that go upward. No name is taken from the front door."""
    faults = []
    for name in imports(ast.parse(source)):
        if not _within(name, "ddpg_jax"):
            continue
        if (target := _module_of(name)) == "ddpg_jax":
            faults.append(f"{module} imports {name} through the front door")
        elif layer_of(target) > layer_of(module):
            faults.append(f"{module}, layer {layer_of(module)}, imports {target}, layer {layer_of(target)}")
    return faults


def border_faults(module: str, source: str) -> list[str]:
    """Imports across a border between rooms that is closed, though it leads downward."""
    faults, own = [], module.removeprefix("ddpg_jax.")
    for name in imports(ast.parse(source)):
        target = _module_of(name).removeprefix("ddpg_jax.")
        for importers, room, allowed in BORDERS:
            closed = _within(own, *importers) and _within(target, room) and not _within(target, *allowed)
            if closed and not (room == "config" and own in READS_CONFIG):
                faults.append(f"{module} imports {name}")
    return faults


def room_circles(edges: dict[str, set[str]]) -> list[str]:
    """Rooms from which a way along the imports leads back."""

    def reached(room: str) -> set[str]:
        seen, open_rooms = set[str](), list(edges.get(room, ()))
        while open_rooms:
            if (here := open_rooms.pop()) not in seen:
                seen.add(here)
                open_rooms += edges.get(here, ())
        return seen

    return [room for room in edges if room in reached(room)]


def library_faults(module: str, source: str) -> list[str]:
    """Libraries imported outside their rooms, and ways to run or load what a stranger wrote."""
    tree, faults = ast.parse(source), []
    rooms = {
        "flax.linen": ("ddpg_jax.agents.modules", "ddpg_jax.agents.sphere", "ddpg_jax.agents.batch_blocks"),
        "gymnasium": ("ddpg_jax.envs.host", "ddpg_jax.envs.device.adapters.functional"),
        "optax": ("ddpg_jax.agents",),
    }
    for name in imports(tree):
        faults += [
            f"{module} imports {library}"
            for library, allowed in rooms.items()
            if _within(name, library) and not _within(module, *allowed)
        ]
        if name.partition(".")[0] in UNSAFE_MODULES:
            faults.append(f"{module} imports {name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            faults.append(f"{module}:{node.lineno} calls {node.func.id}")
        if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
            faults.append(f"{module}:{node.lineno} loads pickles")
    return faults


def undocumented(module: str, source: str) -> list[str]:
    """Public functions, classes and methods without docstring; the module itself too."""
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) else [module]

    def look(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            if not ast.get_docstring(node):
                faults.append(f"{where}.{node.name}")
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{where}.{node.name}")

    look(tree.body, module)
    return faults


EACH_FILE = pytest.mark.parametrize("path", FILES, ids=_name)


@EACH_FILE
def test_imports_go_downward(path):
    """The front door, `ddpg_jax/__init__.py`, names what all layers offer, for type checkers only."""
    if path != PACKAGE / "__init__.py":
        assert not layer_faults(_name(path), path.read_text())


@EACH_FILE
def test_borders_between_rooms_are_kept(path):
    assert not border_faults(_name(path), path.read_text())


def test_rooms_form_no_circle():
    edges: dict[str, set[str]] = {}
    for path in FILES:
        if path != PACKAGE / "__init__.py":
            room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            found = (_module_of(name) for name in imports(ast.parse(path.read_text())) if _within(name, "ddpg_jax"))
            edges.setdefault(room, set()).update(each.split(".")[1] for each in found if each != "ddpg_jax")
    assert len(edges) <= 15  # 13, and what is named with dunders
    assert not room_circles({room: there - {room} for room, there in edges.items()})


def test_circles_are_found():
    assert room_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_the_front_door_imports_nothing_of_the_package():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    assert not [name for name in imports(tree) if _within(name, "ddpg_jax") and not _within(name, "ddpg_jax.__about__")]


@EACH_FILE
def test_libraries_stay_in_their_rooms(path):
    assert not library_faults(_name(path), path.read_text())


@EACH_FILE
def test_public_names_are_documented(path):
    assert not undocumented(_name(path), path.read_text())


@pytest.mark.parametrize(
    ("check", "module", "source"),
    [
        (layer_faults, "ddpg_jax.rng", "from ddpg_jax.agents.noise import zero"),
        (layer_faults, "ddpg_jax.rng", "def f():\n    import ddpg_jax.agents.algorithms"),
        (layer_faults, "ddpg_jax.agents.noise", "from ddpg_jax.agents import policy_gradient"),
        (layer_faults, "ddpg_jax.replay.host.ring", "from ddpg_jax import algorithms"),
        (layer_faults, "ddpg_jax.replay.host.ring", "from ddpg_jax import train"),
        (border_faults, "ddpg_jax.training.host.loop", "from ddpg_jax.runs.directory import RunDirectory"),
        (border_faults, "ddpg_jax.replay.host.ring", "from ddpg_jax.config.schema import Config"),
        (library_faults, "ddpg_jax.agents.heads", "import flax.linen as nn"),
        (library_faults, "ddpg_jax.agents.heads", "from flax import linen"),
        (library_faults, "ddpg_jax.training.host.loop", "def f():\n    from gymnasium.spaces import Box"),
        (library_faults, "ddpg_jax.replay.host.ring", "import optax"),
        (library_faults, "ddpg_jax.training.train", "importlib.import_module('gymnasium.spaces')"),
        (library_faults, "ddpg_jax.runs.directory", "import yaml"),
        (library_faults, "ddpg_jax.runs.directory", "from pickle import loads"),
        (library_faults, "ddpg_jax.runs.directory", "eval('1')"),
        (library_faults, "ddpg_jax.runs.directory", "np.load(path, allow_pickle=True)"),
        (undocumented, "m", "def f(): ..."),
        (undocumented, "m", "'''Doc.'''\ndef f(): ..."),
        (undocumented, "m", "'''Doc.'''\nclass C:\n    '''Doc.'''\n    def f(self): ..."),
    ],
)
def test_the_checks_find_faults(check, module, source):
    assert len(check(module, source)) >= 1


def test_the_checks_find_nothing_where_nothing_is():
    source = '"""Doc."""\nfrom flax import struct\nfrom ddpg_jax import rng\njax.eval_shape(f)'
    for check in (layer_faults, border_faults, library_faults, undocumented):
        assert check("ddpg_jax.agents.heads", source) == []
