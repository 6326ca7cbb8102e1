"""The figures of docs/benchmarks.md and of the README are computed again from the files of benchmarks/results."""

import json
from pathlib import Path

import numpy as np
import pytest

from ddpg_jax.runs.statistics import bootstrap_interval, interquartile_mean

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
README = (ROOT / "README.md").read_text()


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def line(text, start):
    """The one line, a paragraph's or a table's, that begins so."""
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


HOST = {case["case"]: case for case in result("throughput_2cores")["cases"]}
DEVICE = {case["case"]: case for case in result("throughput_device_2cores")["device_cases"]}
VARIANTS = result("variants_2cores")["widths"]


@pytest.mark.parametrize(
    ("case", "start"),
    [
        ("pendulum-64", "| Pendulum-v1, 64-64, 64 |"),
        ("pendulum-256", "| Pendulum-v1, 256-256, 256 |"),
        ("half_cheetah-256", "| HalfCheetah-v5, 256-256, 256 |"),
    ],
)
def test_the_host_loop_beside_its_peers(case, start):
    rates, ratios = HOST[case]["seed_steps_per_second"], HOST[case]["ratio_to"]
    row = line(PAGE, start)
    assert all(f"{rates[name]:.0f}" in row for name in ("ours", "sbx", "sb3"))
    assert row.endswith(f"| {ratios['sbx']:.2f} | {ratios['sb3']:.2f} |")


@pytest.mark.parametrize(
    ("case", "start"),
    [
        ("64, one seed", "| 64-64, batch of 64, one seed |"),
        ("64, 8 seeds", "| 64-64, batch of 64, 8 seeds |"),
        ("64, batch 256", "| 64-64, batch of 256, one seed |"),
        ("256, batch 256", "| 256-256, batch of 256, one seed |"),
    ],
)
def test_the_device_loop_beside_rltools(case, start):
    (found,) = (each for each in result("rltools_2cores")["cases"] if each["case"] == case)
    rates, row = found["seed_updates_per_second"], line(PAGE, start)
    assert all(f"{rates[name]:.0f}" in row for name in ("ours", "rltools"))
    assert row.endswith(f"| {found['ratio']:.2f} |")


@pytest.mark.parametrize(
    ("case", "beside", "start"),
    [
        ("device-64", "ours-host", "| 64-64, 64, 1 seed |"),
        ("device-64-16seeds", "ours-1seed", "| 64-64, 64, 16 seeds |"),
        ("device-256", "product", "| 256-256, 256, 1 seed |"),
        ("rejax-64", "rejax-td3", "| TD3, 64-64, 64, 1 seed |"),
        ("rejax-64-8seeds", "rejax-td3", "| the same, 8 seeds |"),
        ("rejax-64-32seeds", "rejax-td3", "| the same, 32 seeds |"),
    ],
)
def test_the_device_loop_beside_others(case, beside, start):
    rates, row = DEVICE[case]["seed_steps_per_second"], line(PAGE, start)
    ours = rates.get("ours", rates.get("ours-td3"))
    assert f"| {ours:.0f}" in row
    assert f"{rates[beside]:.0f} |" in row
    assert row.endswith(f"| {DEVICE[case]['ratio_to'][beside]:.2f} |")


def test_rejax_with_a_replay_that_costs_little():
    ratios = [DEVICE[f"rejax-64{seeds}"]["ratio_to"]["rejax-td3-2000"] for seeds in ("", "-8seeds", "-32seeds")]
    assert "{:.2f}, {:.2f} and {:.2f} times".format(*ratios) in PAGE


def test_bfloat16():
    ratios = [DEVICE[f"device-{width}-bfloat16"]["ratio_to"]["ours-float32"] for width in (64, 256)]
    assert "{:.2f} times float32 at 64-64, {:.2f} at 256-256".format(*ratios) in PAGE


def test_what_variants_cost():
    names = {
        "smoothed target": "smoothed target",
        "two critics, smoothed target": "two critics",
        "policy delay 2, smoothed target": "policy delay 2",
        "TD3": "td3",
        "D4PG": "d4pg",
        "FastTD3's learner, at these sizes": "fasttd3",
        "layer normalisation": "layer norm",
        "batch normalisation": "batch norm",
        "observation moments": "observation moments",
    }
    for shown, name in names.items():
        ratios = [VARIANTS[width][name]["ratio"] for width in ("64", "256")]
        assert line(PAGE, f"| {shown} |") == "| {} | {:.2f} | {:.2f} |".format(shown, *ratios)
    assert {"ddpg", *names.values()} == VARIANTS["64"].keys()


def test_replay():
    host, device = result("replay_2cores")["host"], result("replay_2cores")["device"]
    drawn, growth = device["microseconds"]["prioritized 1000000"], device["growth"]["prioritized"]
    assert f"| {drawn:.0f} us, {growth:.2f} times" in PAGE
    for what, part in (("draw 256 of 1,000,000 HalfCheetah", "sample"), ("set the priorities of 256", "priorities")):
        ours, theirs = (host[part]["microseconds"][f"{who}, prioritized"] for who in ("ours", "cpprb"))
        (row,) = [each for each in PAGE.splitlines() if f"host: {what}" in each]
        assert f"| {ours:.0f} us; cpprb" in row
        assert f" {theirs:.0f} |" in row
    uniform = result("throughput_replay_2cores")["replay"]
    assert f"| {uniform['ours']:.0f} us; cpprb's uniform buffer {uniform['cpprb']:.0f} |" in PAGE


def test_what_exploration_is_worth():
    five, ou = result("exploration_mountain_car")["cases"], result("exploration_mountain_car_20_seeds")["cases"]
    twenty = ou | result("exploration_mountain_car_20_seeds_parameter")["cases"]
    shown = PAGE.split("### What exploration is worth")[1].split("\n## ")[0]
    kinds = ("ou", "gaussian in the place of ou", "parameter", "gaussian in the place of parameter")
    expected = [[str(cases[kind]["solved"]) for cases in (five, twenty)] for kind in kinds]
    table = [row.strip("|").split("|") for row in shown.splitlines() if row.startswith("|")]
    assert [[cell.strip() for cell in row[1:]] for row in table[2:]] == expected


def test_what_hindsight_is_worth():
    found = result("hindsight_reach")
    for kind, case in found["cases"].items():
        rates = ", ".join(f"{rate:.2f}" for rate in case["success_rates"])
        returns = ", ".join(f"{score:.0f}" for score in case["evaluations"][-1]["per_seed"])
        assert line(PAGE, f"| `{kind}` |") == f"| `{kind}` | {rates} | {returns} |"
    assert len(found["cases"]) == 2
    times = found["microseconds_of_a_draw"]
    for how, words in (("rows", "{:.0f} us with hindsight and {:.0f} without"), ("folded", "{:.0f} and {:.0f} folded")):
        assert words.format(times[f"hindsight, {how}"], times[f"uniform, {how}"]) in PAGE


HALF, DOUBLE = "halfcheetah-v5_", "inverteddoublependulum-v5_"
NOISE = [f"{HALF}few_steps_noise_seeds_{seeds}" for seeds in ("0_to_2", "3_to_5", "6_7")]
LEARNING = [
    ("| Pendulum-v1, as the first command", "ours", ["pendulum-v1_ddpg_12000"]),
    ("| Pendulum-v1, as the first command", "ours", ["pendulum-v1_ddpg_12000_another_machine"]),
    ("| InvertedPendulum-v5 |", "ours", ["invertedpendulum-v5_ddpg_50000"]),
    ("| HalfCheetah-v5, DDPG |", "ours", [f"{HALF}ddpg_50000"]),
    ("| HalfCheetah-v5, DDPG |", "sb3", [f"{HALF}ddpg_50000"]),
    ("| HalfCheetah-v5, TD3 |", "ours", [f"{HALF}td3_50000", f"{HALF}td3_50000_seeds_3_to_7"]),
    ("| HalfCheetah-v5, TD3 |", "sb3", [f"{HALF}td3_50000"]),
    ("**SBX at the same settings.**", "sbx", [f"{HALF}td3_50000", f"{HALF}td3_50000_sbx_seeds_3_to_7"]),
    ("| InvertedDoublePendulum-v5, DDPG", "ours", [f"{DOUBLE}ddpg_30000", f"{DOUBLE}ddpg_30000_seeds_16_to_47"]),
    ("| InvertedDoublePendulum-v5, DDPG", "sb3", [f"{DOUBLE}ddpg_30000"]),
    ("| InvertedDoublePendulum-v5, TD3", "ours", [f"{DOUBLE}td3_30000"]),
    ("| InvertedDoublePendulum-v5, TD3", "sb3", [f"{DOUBLE}td3_30000"]),
    ("| `pendulum/few_steps.toml` |", "ours", ["pendulum-v1_few_steps"]),
    ("| `half_cheetah/few_steps.toml` |", "ours", NOISE),
]


@pytest.mark.parametrize(("start", "who", "names"), LEARNING)
def test_what_was_learned(start, who, names):
    seeds = [score for name in names for score in result(f"learning_{name}")["evaluations"][who][-1]["per_seed"]]
    low, high = bootstrap_interval(np.array(seeds))
    figure = f"{interquartile_mean(np.array(seeds)):.0f} [{low:.0f}, {high:.0f}]"
    assert figure in line(PAGE, start)


@pytest.mark.parametrize("name", ["td7", "flash_td3"])
def test_what_is_learned_in_100_000_steps(name):
    curve = result(f"learning_halfcheetah-v5_{name}_100000")["curve"]
    steps = line(PAGE, "| steps | 20,000").split("|")[2:-1]
    shown = [", ".join(f"{score:.0f}" for score in curve[each.strip().replace(",", "")]) for each in steps]
    assert line(PAGE, f"| `{name}.toml` |") == f"| `{name}.toml` | {' | '.join(shown)} |"
    assert len(curve["100000"]) == 3


def test_what_flash_td3_needs():
    found = result("sweep_flash_td3")
    pendulum, reacher = (found["returns"][env] for env in ("jax:pendulum", "jax:reacher"))
    for name, one, other in zip(found["left_out"], pendulum, reacher, strict=True):
        cells = ", ".join(f"{x:.0f}" for x in one), ", ".join(f"{x:.1f}" for x in other)
        assert line(PAGE, f"| {name} |") == f"| {name} | {' | '.join(cells)} |"


def test_the_table_of_the_readme_is_of_these_figures():
    pendulum, cheetah, device = HOST["pendulum-64"], HOST["half_cheetah-256"], DEVICE["device-64"]
    for case, row in ((pendulum, "| host loop, Pendulum-v1"), (cheetah, "| host loop, HalfCheetah-v5")):
        rates, shown = case["seed_steps_per_second"], line(README, row)
        assert (
            f"| {rates['ours']:.0f} steps/s | sbx-rl {rates['sbx']:.0f}, stable-baselines3 {rates['sb3']:.0f} |"
            in shown
        )
    many = DEVICE["device-64-16seeds"]["seed_steps_per_second"]["ours"]
    shown = line(README, "| device loop")
    assert f"| {device['seed_steps_per_second']['ours']:.0f} steps/s, {many:.0f} seed-steps/s |" in shown
    rates = result("rltools_2cores")["cases"][0]["seed_updates_per_second"]
    shown = line(README, "| TD3 on the device loop")
    assert f"| {rates['ours']:.0f} steps/s | RLtools (C++) {rates['rltools']:.0f} |" in shown
    learned = line(PAGE, "| HalfCheetah-v5, TD3 |").split("|")[4].strip()
    assert learned in line(README, "| TD3 on HalfCheetah-v5")
    seconds = result("faults_2cores")["checkpoint"]["seconds"]
    assert f"{seconds['incremental']:.3f} s for 10,000 new rows, {seconds['full']:.2f} s in full" in README
