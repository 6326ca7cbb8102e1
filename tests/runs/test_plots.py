"""Pictures are written for every number of seeds and evaluations."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ddpg_jax.runs.plots import learning_curve, ranking


@pytest.mark.parametrize(("seeds", "evaluations"), [(1, 1), (1, 4), (5, 1), (5, 4), (2, 2)])
def test_a_learning_curve_is_a_picture(tmp_path, seeds, evaluations):
    returns = np.random.default_rng(0).normal(-500, 100, (evaluations, seeds))
    path = tmp_path / "learning_curve.png"
    learning_curve(path, np.arange(1, evaluations + 1) * 1000, returns, "Pendulum-v1, ddpg")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = plt.imread(path)
    assert picture.shape[0] > 400
    assert picture.shape[1] > 600
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50  # something is drawn
    assert plt.get_fignums() == []  # and the figure is closed


def test_what_is_drawn_is_what_was_given(tmp_path):
    """Equal returns give equal pictures, others give others."""

    def picture(name, shift):
        learning_curve(tmp_path / name, np.array([1, 2]), np.array([[0.0, 1.0], [2.0, 3.0 + shift]]), "title")
        return plt.imread(tmp_path / name)

    first = picture("a.png", 0.0)
    np.testing.assert_array_equal(first, picture("b.png", 0.0))
    assert (first != picture("c.png", 5.0)).any()


def entries(seeds, fields):
    rng = np.random.default_rng(0)
    scores = rng.normal(-200, 40, (12, seeds))
    return [
        {
            "combination": i,
            "values": {name: 10.0 ** -(i % 4) if i % 2 else [256, 256, 256] for name in fields},
            "interquartile_mean": float(each.mean()),
            "interval": (float(each.min()), float(each.max())) if seeds > 1 else None,
            "per_seed": each.tolist(),
            "step": 1000 if i < 7 else 250,
        }
        for i, each in enumerate(scores)
    ]


FIELDS = ("algorithm.critic_learning_rate", "exploration.sigma_end", "algorithm.actor_weight_decay")


@pytest.mark.parametrize("fields", [FIELDS[:1], FIELDS], ids=len)
def test_a_ranking_is_drawn_with_its_fields_as_columns_and_nothing_is_cut_off(tmp_path, monkeypatch, fields):
    figures = []
    monkeypatch.setattr("ddpg_jax.runs.plots._save", lambda figure, path: figures.append(figure))
    shares = dict.fromkeys(fields, 0.25)
    ranking(tmp_path / "ranking.png", entries(3, fields), "jax:pendulum, 12 combinations", shares)
    (figure,) = figures
    axes, cost = figure.axes
    assert [bar.get_width() for bar in cost.patches] == [1000] * 7 + [250] * 5
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, (width, height) = canvas.get_renderer(), canvas.get_width_height()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == len(fields) * 14
    low, high = axes.get_xlim()  # a tick beyond them has a label too, which is not drawn
    ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert len(ticks) > 2
    for box in [*boxes, *(tick.get_window_extent(renderer) for tick in ticks)]:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert max(box.x1 for box in boxes) <= axes.get_window_extent(renderer).x0
    for row in range(13):
        columns = boxes[row * len(fields) : (row + 1) * len(fields)]
        assert all(left.x1 < right.x0 for left, right in pairwise(columns))
