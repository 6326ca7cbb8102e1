"""What docs/search.md says can be typed: its files are searches."""

import re
from pathlib import Path

from ddpg_jax.training.search.file import load_search

BLOCKS = re.findall(r"```toml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "search.md").read_text(), re.DOTALL)


def test_the_files_shown_are_searches(tmp_path):
    path = tmp_path / "search.toml"
    whole, tasks = (block.replace('sampler = "tpe"', 'sampler = "random"') for block in BLOCKS)
    path.write_text(whole)
    assert load_search(path).settings.trials == 32
    assert load_search(path).stop.kind == "successive_halving"
    path.write_text(f"{whole}\n{tasks}")
    first, second = load_search(path).tasks
    assert (first.name, second.name) == ("jax:pendulum", "HalfCheetah-v5")
    assert first.normalize(-150) == second.normalize(6000) == 1
