"""The numbers of a comparison by hand; its figures and tables: what is in them, and that they repeat to the byte."""

import csv
import json
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.compare import figures
from ddpg_jax.runs.compare.comparison import compare_groups
from ddpg_jax.runs.compare.evaluations import NEVER, Evaluations
from ddpg_jax.runs.compare.page import write_page
from ddpg_jax.runs.compare.tables import write_tables

NASTY = r"_a_b $x^{2}$ 50% & <i>|\n"
"""A name that TeX, Markdown, HTML and matplotlib would each read in their way."""

FIGURES = {
    *("learning_curves", "final_and_best", "performance_profile"),
    *("probability_of_improvement", "sample_efficiency", "wall_clock"),
}


def evaluations(returns, task="T", steps=(10, 20, 30), seconds=(1.0, 2.0, 3.0)):
    returns = np.array(returns, float)
    names = tuple(map(str, range(returns.shape[1])))
    lost = np.full(len(names), NEVER)
    return Evaluations("runs/x", task, np.array(steps), names, returns, lost, np.array(seconds), len(names))


GOOD = [[0, 0, 0, 0], [5, 6, 7, 8], [4, 5, 6, 7]]
POOR = [[0, 0, 0, 0], [1, 2, 3, 90], [1, 2, 3, 4]]


@pytest.fixture(scope="module")
def groups():
    return {"good": [evaluations(GOOD)], NASTY: [evaluations(POOR)], "pair": [evaluations([[0, 0], [1, 1], [2, 4]])]}


@pytest.fixture(scope="module")
def comparison(groups):
    return compare_groups(groups)


def test_final_and_best_are_apart(comparison):
    good, poor = (comparison.tasks["T"].groups[name] for name in ("good", NASTY))
    assert (good.final.step, good.final.centre.value) == (30, 5.5)
    assert (good.best.step, good.best.centre.value) == (20, 6.5)
    assert good.best.seeds.tolist() == [5, 6, 7, 8]
    assert (poor.best.step, poor.best.centre.value) == (20, 2.5)  # by its interquartile mean, not by its one lucky seed
    low, high = good.final.centre.interval
    assert 4 <= low < 5.5 < high <= 7
    np.testing.assert_array_equal(good.band.centre, [0, 6.5, 5.5])
    assert (good.band.low <= good.band.centre).all()
    assert (good.band.high >= good.band.centre).all()


def test_steps_are_counted_to_the_highest_return_that_every_group_ends_with(comparison):
    task = comparison.tasks["T"]
    assert task.target == 2.5
    reach = {name: found.reach for name, found in task.groups.items()}
    assert (reach["good"].steps, reach["good"].reached, reach["good"].seconds) == (20, 4, 2.0)
    assert reach["good"].interval == (20, 20)
    assert (reach[NASTY].steps, reach[NASTY].reached) == (20, 2)
    assert (reach["pair"].steps, reach["pair"].reached, reach["pair"].interval) == (30, 1, None)


def test_every_group_is_at_its_own_last_return_at_the_latest():
    """To the last bit, whatever the order of its sums."""
    for seed in range(8):
        group = [evaluations(np.random.default_rng(seed).normal(size=(3, 7)) * 1e3)]
        (found,) = compare_groups({"a": group}).tasks["T"].groups.values()
        assert found.reach.steps <= 30


def test_a_target_of_ones_own_may_never_be_reached(groups):
    task = compare_groups(groups, targets={"T": 50.0}).tasks["T"]
    assert task.groups["good"].reach[:3] == (np.inf, (np.inf, np.inf), 0)
    assert np.isnan(task.groups["good"].reach.seconds)
    assert task.groups[NASTY].reach.reached == 1


def test_pairs_name_the_better_first(comparison):
    found = {(pair.better, pair.worse): pair.probability for pair in comparison.improvements}
    assert len(found) == 3
    assert found["good", NASTY].value == 15.5 / 16
    assert found["good", "pair"].value == 7.5 / 8
    assert found["good", "pair"].interval is None
    assert all(each.value >= 0.5 for each in found.values())


def test_few_seeds_are_told(comparison):
    assert [note for note in comparison.notes if "no interval for pair (2)" in note]
    three = compare_groups({"a": [evaluations(np.zeros((3, 3)))]})
    assert "is the mean" in three.notes[0]
    assert three.improvements == []


def test_groups_without_a_common_step_are_scored_at_their_own_aloud():
    found = compare_groups(
        {"a": [evaluations([[1] * 3, [2] * 3], steps=[10, 20], seconds=[1, 2])],
         "b": [evaluations([[3] * 3, [4] * 3], steps=[15, 25], seconds=[1, 2])]}
    )  # fmt: skip
    assert [each.final.step for each in found.tasks["T"].groups.values()] == [20, 15]
    assert any("share no step" in note for note in found.notes)


def test_scores_over_all_tasks_need_a_scale_for_each():
    two = {
        "a": [evaluations(GOOD), evaluations(np.array(GOOD) * 100, "U")],
        "b": [evaluations(POOR)],
    }
    assert compare_groups(two).aggregates == {}
    found = compare_groups(two, scales={"T": (0, 10), "U": (0, 1000)})
    assert found.aggregates.keys() == {"a"}
    assert any("b is left out" in note for note in found.notes)
    assert found.aggregates["a"].centre.value == pytest.approx(0.55)
    assert found.aggregates["a"].gap.value == pytest.approx(0.45)
    assert found.improvements[0].tasks == 1
    for wrong in ({"T": (0.0, 1.0)}, {"T": (0.0, 1.0), "U": (0.0, 1.0), "V": (0.0, 1.0)}):
        with pytest.raises(ConfigError, match="--normalize"):
            compare_groups(two, scales=wrong)
    with pytest.raises(ConfigError, match="--target V"):
        compare_groups(two, targets={"V": 1.0})


def test_a_groups_numbers_do_not_depend_on_what_stands_beside_it(groups, comparison):
    alone = compare_groups({"good": groups["good"]}).tasks["T"].groups["good"]
    beside = comparison.tasks["T"].groups["good"]
    assert alone.final.centre == beside.final.centre
    np.testing.assert_array_equal(alone.band.low, beside.band.low)


@pytest.fixture(scope="module")
def drawn(groups, comparison, tmp_path_factory):
    """A folder with all files of the comparison."""
    return write_all(tmp_path_factory.mktemp("drawn"), comparison, groups)


def write_all(folder, comparison, groups):
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    names = figures.draw_figures(comparison, folder / "figures"), write_tables(comparison, folder / "tables")
    write_page(folder / "comparison.md", comparison, groups, *names)
    return folder


@pytest.mark.slow
def test_equal_comparisons_are_equal_files(groups, drawn, tmp_path):
    again = write_all(tmp_path, compare_groups(groups), groups)
    names = [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert len(names) == len(FIGURES) * 3 + 5 * 3 + 2
    assert [name for name in names if (again / name).read_bytes() != (drawn / name).read_bytes()] == []


def test_every_figure_is_there_in_every_format(drawn):
    begins = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}
    assert {path.name for path in (drawn / "figures").iterdir()} == {f"{a}.{b}" for a in FIGURES for b in begins}
    for path in (drawn / "figures").iterdir():
        content = path.read_bytes()
        assert content.startswith(begins[path.suffix[1:]])
        assert len(content) > 5000
        assert b"CreationDate" not in content
        assert b"/Type3" not in content
        assert not re.search(rb"<dc:date>", content)


def test_csv_tables_hold_every_digit(drawn, comparison):
    with (drawn / "tables" / "scores.csv").open(newline="") as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    good = comparison.tasks["T"].groups["good"]
    assert list(rows) == ["good", NASTY, "pair"]
    assert float(rows["good"]["final IQM"]) == good.final.centre.value
    assert (float(rows["good"]["low"]), float(rows["good"]["high"])) == good.final.centre.interval
    assert rows["pair"]["low"] == ""
    with (drawn / "tables" / "curves.csv").open(newline="") as file:
        curve = [row for row in csv.DictReader(file) if row["group"] == "good"]
    assert [float(row["IQM"]) for row in curve] == good.band.centre.tolist()
    assert [int(row["step"]) for row in curve] == [10, 20, 30]


def test_names_are_escaped_in_markdown_and_latex(drawn):
    markdown = (drawn / "tables" / "seeds.md").read_text()
    latex = (drawn / "tables" / "seeds.tex").read_text()
    assert {line.replace(r"\|", "").count("|") for line in markdown.splitlines()} == {7}
    assert r"\_a\_b \$x\textasciicircum{}\{2\}\$ 50\% \& \textless{}i\textgreater{}\textbar{}\textbackslash{}n" in latex
    assert len(re.findall(r"(?<!\\)&", latex)) == 5 * (1 + 10)
    page = (drawn / "comparison.md").read_text()
    assert r"\<i\>" in page
    assert "no interval for pair" in page
    assert all(f"figures/{name}.png" in page for name in FIGURES)


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_no_text_of_a_figure_is_cut_off_or_covered(monkeypatch, tmp_path, comparison, name):
    found = []
    monkeypatch.setattr(figures, "_FIGURES", {name: figures._FIGURES[name]})
    write = figures._write
    monkeypatch.setattr(figures, "FORMATS", ())
    monkeypatch.setattr(figures, "_write", lambda figure, stem: (write(figure, stem), found.append(figure)))
    figures.draw_figures(comparison, tmp_path)
    (figure,) = found
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, (width, height) = canvas.get_renderer(), canvas.get_width_height()
    boxes = [legend.get_window_extent(renderer) for legend in figure.legends]
    for axes in figure.axes:
        low, high = sorted(axes.get_ylim())  # a tick beyond them has a label too, which is not drawn
        labels = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
        labels += [axes.title, axes.xaxis.label, axes.yaxis.label]
        boxes += [label.get_window_extent(renderer) for label in labels if label.get_text()]
        below = axes.xaxis.label.get_window_extent(renderer)
        assert all(legend.get_window_extent(renderer).y1 <= below.y0 for legend in figure.legends)
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    shown += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert any(NASTY in text for text in shown)


def test_groups_differ_by_colour_and_by_line():
    styles = [json.dumps(style) for style in figures._styles([str(i) for i in range(35)]).values()]
    assert len(set(styles)) == 35
    few = list(figures._styles("abcde").values())
    assert len({style["color"] for style in few}) == len({str(style["linestyle"]) for style in few}) == 5


def test_without_times_there_is_no_clock(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "FORMATS", ())
    found = compare_groups({"a": [evaluations(GOOD, seconds=[np.nan] * 3)]})
    assert set(figures.draw_figures(found, tmp_path)) == FIGURES - {"wall_clock", "probability_of_improvement"}
