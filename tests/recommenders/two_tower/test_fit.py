import numpy as np
import pytest

from tests.features.test_inputs import HISTORIES, make_timelines
from tfrs_fashion.features.inputs import make_training_baskets
from tfrs_fashion.recommenders.two_tower.fit import initial_gain


def gain(
    histories: list[list[tuple[int, int]]], *, size: int = 10, history_articles: int = 64, temperature: float = 0.07
) -> float:
    timelines = make_timelines(histories)
    baskets = make_training_baskets(timelines, since=0, history_length=99)
    return initial_gain(timelines, baskets, size=size, history_articles=history_articles, temperature=temperature)


def test_the_initial_gain_gives_the_log_odds_of_a_repeat_purchase() -> None:
    # Of four targets with a history, two are in it; the histories hold 2, 2 and 1 distinct articles.
    distinct = 5 / 3
    bought, others = (2 + 0.5) / (4 + 1) / distinct, (2 + 0.5) / (4 + 1) / (10 - distinct)
    assert gain(HISTORIES) == pytest.approx(0.07 * np.log(bought / others) * np.sqrt(distinct))
    # Read one article at most, and each history holds one.
    bought, others = (2 + 0.5) / (4 + 1), (2 + 0.5) / (4 + 1) / (10 - 1)
    assert gain(HISTORIES, history_articles=1) == pytest.approx(0.07 * np.log(bought / others))


def test_without_repeat_purchases_the_initial_gain_is_0() -> None:
    histories = [[(2 + (row + step) % 8, 10 * step) for step in range(4)] for row in range(4)]
    assert gain(histories) == 0.0


def test_with_only_repeat_purchases_the_initial_gain_is_1() -> None:
    histories = [[(2 + row % 8, 10 * step) for step in range(9)] for row in range(4)]
    assert gain(histories, size=10**6, temperature=0.2) == 1.0


@pytest.mark.parametrize("history_articles", [0, 64])
def test_without_a_history_the_initial_gain_is_1(history_articles: int) -> None:
    assert gain([[(2, 10)], [(3, 20), (4, 20)]], history_articles=history_articles) == 1.0
