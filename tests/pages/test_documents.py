"""What the pages name exists, and what they state of the code is what the code does."""

import importlib
import re
import tomllib
from itertools import product
from pathlib import Path
from pkgutil import resolve_name

import pytest

import ddpg_jax
from ddpg_jax.config.load import load_config
from ddpg_jax.config.schema import DEVICE_BACKENDS
from ddpg_jax.runs.loggers.health import LIMITS

ROOT = Path(__file__).parents[2]
PACKAGE = Path(ddpg_jax.__file__).parent
PAGES = {path.name: path.read_text() for path in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]}
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_")
FILE = re.compile(rf"`((?:ddpg_jax|tests|docs|benchmarks|configs|{'|'.join(ROOMS)})/[\w/.*{{}},]*)`")


def rows(page, heading):
    """The cells of the first table below a heading, without its head."""
    after = PAGES[page].split(f"{heading}\n", 1)[1]
    lines = [line for line in after[after.index("\n|") :].split("\n\n")[0].splitlines() if line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def expanded(path):
    """`a/{b,c}/d` as `a/b/d` and `a/c/d`."""
    parts = [part.split(",") for part in re.split(r"\{(.*?)\}", path)]
    return ["".join(chosen) for chosen in product(*parts)]


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"CHANGELOG.md"}))
def test_what_a_page_names_exists(page):
    named = [path for found in FILE.findall(PAGES[page]) for path in expanded(found)]
    roots = (ROOT, PACKAGE, ROOT / "docs")
    assert not [path for path in named if not any([*root.glob(path.rstrip("/"))] for root in roots)]
    links = [link for link in re.findall(r"\]\(([\w/.]+)(?:#[\w-]+)?\)", PAGES[page]) if "//" not in link]
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    assert not [link for link in links if not (folder / link).exists()]


def test_results_that_are_named_are_kept():
    for page, text in PAGES.items():
        for name in re.findall(r"`([\w*-]+\.json)`", text):
            if name not in ("result.json", "manifest.json", "format.json", "spec.json"):
                assert [*(ROOT / "benchmarks" / "results").glob(name)], f"{page} names {name}"


def test_extras_that_are_named_can_be_asked_for():
    """By their normal names: pip before 23.3 finds no others, and goes on without what they would have brought."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys()
    assert not [extra for extra in extras if extra != re.sub(r"[-_.]+", "-", extra).lower()]
    for page, text in PAGES.items():
        for named in re.findall(r"(?:ddpg-jax|\.)\[([\w, -]+)\]", text):
            assert extras >= set(re.split(r", *", named)), f"{page} names [{named}]"


def test_every_page_can_be_found_from_the_readme():
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in PAGES["README.md"]


def test_the_pages_that_must_be_short_are():
    assert len(PAGES["architecture.md"].splitlines()) <= 120
    assert len(PAGES["README.md"].splitlines()) <= 110


def test_the_architecture_names_every_room():
    assert all(f"  {room}/ " in PAGES["architecture.md"] for room in ROOMS)


def test_decisions_are_numbered_in_order():
    numbers = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", PAGES["decisions.md"], re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 30
    cited = re.findall(r"decisions?(?:\.md,)? (\d+)", "".join(PAGES.values()))
    assert all(int(number) in numbers for number in cited)


def test_the_limits_of_health_are_those_of_the_code():
    shown = {cells[0].strip("`"): cells for cells in rows("health.md", "# What a run says about its health")}
    assert shown.keys() == LIMITS.keys()
    for name, limit in LIMITS.items():
        most = f"{limit.most:g}" + (" largest returns" if limit.relative else "")
        after = f"{limit.lasting} updates above" if limit.lasting else "at once"
        assert shown[name][2:4] == [most, after]


def test_the_conditions_of_performance_are_those_of_the_code():
    from ddpg_jax.xla.tuning import Tuning

    assert [cells[0] for cells in rows("performance.md", "# Performance: the tricks, one by one")] == [
        f"`{field}`" for field in Tuning._fields
    ]


@pytest.fixture
def benchmarks(monkeypatch):
    """Their modules, by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_the_commands_of_performance_are_benchmarks(benchmarks):
    throughput, tricks = benchmarks("throughput"), benchmarks("tricks").TRICKS
    cases = {*throughput.CASES, *throughput.device_throughput.CASES, throughput.device_throughput.COMPILE}
    measured = set()
    for heading in ("## In `xla/`", "## Outside `xla/`, as they are part of what they speed up"):
        for cells in rows("performance.md", heading):
            assert len(cells) == 5
            assert all(cells)
            for script in re.findall(r"`(\w+\.py)", cells[-1]):
                assert (ROOT / "benchmarks" / script).exists()
            for named in re.findall(r"--cases ([\w,-]+)", cells[-1]):
                assert {*named.split(",")} <= cases
            measured.update(name for named in re.findall(r"--tricks ([\w,-]+)", cells[-1]) for name in named.split(","))
    assert measured == tricks.keys()


def test_what_a_trick_replaces_is_there(benchmarks):
    targets = [target for trick in benchmarks("tricks").TRICKS.values() for target in trick.plain]
    assert len(targets) > 5
    for target in targets:
        owner, name = target.rsplit(".", 1)
        assert hasattr(resolve_name(owner), name)


def test_the_backends_of_environments_are_those_of_the_code():
    ids = "".join(cells[0] for cells in rows("environments.md", "# Environments"))
    assert all(f"`{backend}:" in ids for backend in DEVICE_BACKENDS)


def test_the_value_ranges_of_environments_are_those_of_the_tasks():
    for task, shown, _ in rows("environments.md", "## Value ranges"):
        assert tuple(map(float, shown.split(" to "))) == load_config(task).env.value_range


def test_the_environment_of_ones_own_is_one(tmp_path, monkeypatch):
    from ddpg_jax.envs.host.make import make_env

    (tmp_path / "my_envs.py").write_text(
        re.search(r"```python\n(# my_envs.py.*?)```", PAGES["own_environments.md"], re.S)[1]
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env("my_envs:Point", 50, {})
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(50)]
    assert ends == [(False, False)] * 49 + [(False, True)]
    env.close()
