"""Explanations are of what was answered, and add up to it."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.two_stage import TwoStage
from tfrs_fashion.run.explain import explain_articles, show
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.pipeline import PipelineConfig


@pytest.fixture(scope="module")
def two_stage(view: View, config: PipelineConfig, make_two_stage: Callable[..., TwoStage]) -> TwoStage:
    return make_two_stage(view, config, "network")


def test_the_best_is_explained_and_so_is_what_was_no_candidate(two_stage: TwoStage, view: View) -> None:
    customer = int(np.flatnonzero(np.diff(view.timelines.row_splits) > 3)[0]) + FIRST_INDEX
    histories = HistoryTable(view.timelines, view.profiles)(tf.constant([customer], tf.int32))
    now = tf.constant(view.now[[customer]])
    answer = two_stage(histories, now=now, k=tf.constant(60), exclude=tf.zeros([1, 0], tf.int32))
    given = answer.article_index.numpy()[0]
    other = int(np.setdiff1d(np.arange(FIRST_INDEX, view.articles.num_articles + FIRST_INDEX), given)[0])
    (best,) = explain_articles(two_stage, view, customer, [])
    assert best.article_index == given[0]
    assert best.place == 1
    assert best.probability == pytest.approx(float(answer.score.numpy()[0, 0]), rel=1e-5)
    third, stranger = explain_articles(two_stage, view, customer, [int(given[2]), other])
    assert (third.place, stranger.place) == (3, 0)
    assert third.num_candidates == (given > 0).sum()
    told = {name: value for name, value, _added in stranger.added}
    assert np.isnan(told["rank repurchase"])
    assert told["article times"] == 0
    sizes = [abs(added) for _name, _value, added in best.added]
    assert sizes == sorted(sizes, reverse=True)
    assert len(best.added) == len(two_stage.describer.names) + 3
    logit = [np.log(found.probability / (1 - found.probability)) for found in (best, third)]
    total = [sum(added for _name, _value, added in found.added) for found in (best, third)]
    assert total[0] - total[1] == pytest.approx(logit[0] - logit[1], abs=0.02)


def test_what_is_shown(two_stage: TwoStage, view: View) -> None:
    (best,) = explain_articles(two_stage, view, FIRST_INDEX + 1, [])
    console = Console(record=True, width=140)
    show(console, best, article_id="0123", customer_id="c1")
    shown = console.export_text()
    assert "0123 for c1: place 1 of" in shown
    assert "times the odds" in shown
    assert "further features together" in shown


def test_a_customer_without_candidates_is_told(two_stage: TwoStage, view: View) -> None:
    alone = TwoStage(
        two_stage.blend,
        two_stage.describer,
        two_stage.rankers,
        combination="score",
        budget=0,
        name="two_stage",
    )
    with pytest.raises(InputError, match="two_stage has no candidate"):
        explain_articles(alone, view, FIRST_INDEX, [])
