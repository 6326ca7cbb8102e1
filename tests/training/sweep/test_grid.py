"""Sweep files: which combinations they name, how these are grouped, and what is refused."""

import numpy as np
import pytest

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.sweep.grid import load_sweep

PENDULUM = '[config]\nseeds = 2\nenv.id = "jax:pendulum"\n'


@pytest.fixture
def sweep_of(tmp_path):
    """`(text, **overrides) -> Sweep` of a file with that text."""

    def make(text, **overrides):
        path = tmp_path / "sweep.toml"
        path.write_text(text)
        return load_sweep(path, overrides)

    return make


def refusal(sweep_of, text):
    with pytest.raises(ConfigError) as caught:
        sweep_of(text)
    return str(caught.value)


def test_a_grid_is_every_combination_in_one_group(sweep_of):
    sweep = sweep_of(PENDULUM + "[grid]\nalgorithm.tau = [0.01, 0.02, 0.03]\nexploration.sigma = [0.1, 0.2]")
    assert [tuple(values.values()) for values in sweep.combinations] == [
        (0.01, 0.1), (0.01, 0.2), (0.02, 0.1), (0.02, 0.2), (0.03, 0.1), (0.03, 0.2)
    ]  # fmt: skip
    (group,) = sweep.groups
    assert group.numbers == (0, 1, 2, 3, 4, 5)
    np.testing.assert_array_equal(group.hyper["algorithm.tau"], np.float32([0.01, 0.01, 0.02, 0.02, 0.03, 0.03]))
    np.testing.assert_array_equal(group.hyper["exploration.sigma"], np.float32([0.1, 0.2] * 3))
    assert [config.algorithm.tau for config in sweep.configs] == [0.01, 0.01, 0.02, 0.02, 0.03, 0.03]


def test_quoted_paths_and_dotted_keys_are_the_same(sweep_of):
    dotted = sweep_of(PENDULUM + "[grid]\nalgorithm.tau = [0.01]")
    assert sweep_of(PENDULUM + '[grid]\n"algorithm.tau" = [0.01]') == dotted


def test_structure_makes_groups_and_numbers_do_not(sweep_of):
    text = (
        PENDULUM
        + "[grid]\nalgorithm.hidden = [[8], [16, 16]]\nalgorithm.n_step = [1, 3]\nalgorithm.gamma = [0.9, 0.99]"
    )
    sweep = sweep_of(text)
    assert [group.numbers for group in sweep.groups] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    shapes = [(group.config.algorithm.hidden, group.config.algorithm.n_step) for group in sweep.groups]
    assert shapes == [((8,), 1), ((8,), 3), ((16, 16), 1), ((16, 16), 3)]
    assert all(list(group.hyper) == ["algorithm.gamma"] for group in sweep.groups)


def test_random_draws_keep_their_ranges_and_repeat(sweep_of):
    text = PENDULUM + "[random]\nalgorithm.critic_learning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
    text += "algorithm.gamma = { low = 0.9, high = 0.99 }"
    sweep = sweep_of("draws = 200\n" + text)
    rates = np.array([values["algorithm.critic_learning_rate"] for values in sweep.combinations])
    gammas = np.array([values["algorithm.gamma"] for values in sweep.combinations])
    assert len(sweep.combinations) == 200
    for values, low, almost_low, almost_high, high in (
        (rates, 1e-4, 2e-4, 5e-3, 1e-2),
        (gammas, 0.9, 0.91, 0.98, 0.99),
    ):
        assert low <= values.min() < almost_low
        assert almost_high < values.max() <= high
    assert 0.4 < (rates < 1e-3).mean() < 0.6  # half of the draws below the geometric middle: they are logarithmic
    assert sweep_of("draws = 200\n" + text).combinations == sweep.combinations
    other = sweep_of("draws = 200\ndraw_seed = 1\n" + text)
    assert not {tuple(v.values()) for v in other.combinations} & {tuple(v.values()) for v in sweep.combinations}


def test_draws_are_made_for_each_corner_of_the_grid(sweep_of):
    text = "draws = 3\n" + PENDULUM + "[grid]\nalgorithm.tau = [0.01, 0.02]\n"
    sweep = sweep_of(text + "[random]\nalgorithm.gamma = { low = 0.9, high = 0.99 }")
    gammas = [values["algorithm.gamma"] for values in sweep.combinations]
    assert len(gammas) == 6
    assert gammas[:3] == gammas[3:]
    assert len(set(gammas)) == 3


def test_the_base_file_and_the_command_line_take_their_places(sweep_of, tmp_path):
    (tmp_path / "base.toml").write_text("total_steps = 700\n[algorithm]\nbatch_size = 16\ntau = 0.5\n")
    text = (
        'base = "base.toml"\n[config]\nenv.id = "jax:pendulum"\nalgorithm.tau = 0.25\n[grid]\nalgorithm.gamma = [0.9]'
    )
    (config,) = sweep_of(text).configs
    assert (config.total_steps, config.algorithm.batch_size, config.algorithm.tau) == (700, 16, 0.25)
    (config,) = sweep_of(text, total_steps=900).configs
    assert (config.total_steps, config.algorithm.gamma) == (900, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gird]\nalgorithm.tau = [0.1]", "gird: unknown key; did you mean grid?"),
        (PENDULUM, "there is neither [grid] nor [random]"),
        ("[grid]\nalgorithm.tau = 0.1", "grid.algorithm.tau = 0.1: must be a list of values"),
        ("[grid]\nalgorithm.tau = []", "must be a list of values"),
        ("[grid]\nalgorithm.tua = [0.1]", "algorithm.tua = 0.1"),
        ("[grid]\nalgorithm.tau = [0.1, 2]", "algorithm.tau = 2"),
        ("[grid]\nseeds = [1, 2]", "every combination runs the same seeds"),
        ("draws = 3\n[random]\nalgorithm.tau = { low = 0.2, high = 0.1 }", "low must be below high"),
        ("draws = 3\n[random]\nalgorithm.tau = { low = 0, high = 0.1, log = true }", "positive for log"),
        ("draws = 3\n[random]\nalgorithm.tau = { low = 0.1 }", "random.algorithm.tau: high: Field required"),
        ("[random]\nalgorithm.tau = { low = 0.1, high = 0.2 }", "set both or neither"),
        ("draws = 3\n[grid]\nalgorithm.tau = [0.1]", "set both or neither"),
        (
            "draws = 2\n[grid]\nalgorithm.tau = [0.1]\n[random]\nalgorithm.tau = { low = 0.1, high = 0.2 }",
            "algorithm.tau: stands in both",
        ),
        (
            "[config]\nalgorithm.tau = 0.5\n[grid]\nalgorithm.tau = [0.1]",
            "algorithm.tau: is swept, and set to 0.5 for all; leave one out",
        ),
        (
            "draws = 3\n[random]\nalgorithm.batch_size = { low = 1, high = 9 }",
            "random.algorithm.batch_size: takes no fractions",
        ),
        ("draws = 99\n[random]\nalgorithm.tau = { low = 2, high = 3 }", "... and 79 more"),
        ("[grid]\nalgorithm.critic_weight_decay = [0.1]", "has no effect"),
    ],
)
def test_mistakes_are_named(sweep_of, text, message):
    assert message in refusal(sweep_of, text)


def test_kinds_of_noise_can_be_compared_though_the_base_sets_one(sweep_of, tmp_path):
    (tmp_path / "base.toml").write_text('exploration = { kind = "ou", theta = 0.3 }\n')
    first, second = sweep_of('base = "base.toml"\n[grid]\nexploration.kind = ["ou", "gaussian"]').configs
    assert (first.exploration.kind, first.exploration.theta, second.exploration.kind) == ("ou", 0.3, "gaussian")


def test_all_mistakes_of_the_combinations_are_reported_once(sweep_of):
    report = refusal(sweep_of, "[grid]\nalgorithm.tau = [2, 3]\nalgorithm.gamma = [-1, 0.9]")
    assert [report.count(f"{name}:") + report.count(f"{name} =") for name in ("tau", "gamma")] == [2, 1]


def test_a_base_may_be_a_preset_or_several_files_in_order(sweep_of, tmp_path):
    (tmp_path / "mine.toml").write_text("seeds = 4\n[env]\nid = 'jax:pendulum'\nworkers = 0\n")
    sweep = sweep_of('base = ["hopper", "d4pg", "mine.toml"]\n[grid]\nalgorithm.tau = [0.1, 0.2]')
    config = sweep.configs[0]
    assert (config.env.id, config.seeds, config.algorithm.name) == ("jax:pendulum", 4, "d4pg")
    assert (config.algorithm.v_min, config.algorithm.warmup_steps) == (-50.0, 1000)
    assert sweep_of('base = "ddpg"\n[grid]\nalgorithm.tau = [0.1, 0.2]').configs[0].algorithm.hidden == (256, 256)


@pytest.mark.parametrize("fields", [2, 7])
def test_a_grid_of_more_combinations_than_can_be_run_is_refused_at_once(sweep_of, fields):
    names = ("tau", "gamma", "actor_learning_rate", "critic_learning_rate", "target_noise", "n_step", "batch_size")
    lines = [f"algorithm.{name} = {list(range(1, 1001))}" for name in names[:fields]]
    with pytest.raises(ConfigError, match=f"{1000**fields} combinations are more than 65536"):
        sweep_of("[grid]\n" + "\n".join(lines))


def test_a_sweep_may_name_no_module_to_import(sweep_of):
    with pytest.raises(ConfigError, match="a module to import may be named by an argument only"):
        sweep_of('[grid]\nenv.id = ["os:Evil-v0"]')
