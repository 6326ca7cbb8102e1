"""The mutants find their text, so that whoever changes it hears of it at once; `mutate.py` runs them."""

import ast
import runpy
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = runpy.run_path(str(Path(__file__).with_name("mutate.py")))["load"]()
MUTANTS = [mutant for mutants in ROOMS.values() for mutant in mutants]


@cache
def functions(path):
    return [node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)]


def test_each_mutant_finds_its_text_once_and_leaves_python_behind():
    for mutant in MUTANTS:
        assert mutant.new != mutant.old, mutant.name
        compile(mutant.apply(), mutant.file, "exec", ast.PyCF_ONLY_AST)


def test_each_mutant_has_a_name_of_its_own_and_stands_beside_the_tests_of_its_room():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for path, mutants in ROOMS.items():
        for mutant in mutants:
            assert mutant.file.startswith(f"ddpg_jax/{path.parent.name}/"), mutant.name
            assert mutant.name.startswith(f"{Path(mutant.file).stem}: "), mutant.name


def test_the_tests_of_each_mutant_exist():
    for mutant in MUTANTS:
        files, _, word = mutant.tests.partition(" -k ")
        names = [name for path in files.split() for name in functions(path)]
        assert any(name.startswith("test_") and word in name for name in names), f"{mutant.name}: {mutant.tests}"
