"""Why an article stands where it does in a customer's list: what each feature adds, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfrs_fashion.evaluation.report.feature_words import describe_feature, describe_odds
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.models.attribution import EMBEDDED
from tfrs_fashion.recommenders.two_stage import TwoStage
from tfrs_fashion.run.report import ids_by_index
from tfrs_fashion.run.train import Training
from tfrs_fashion.schema import FIRST_INDEX, InputError, find_nearest
from tfrs_fashion.settings.rankers import TwoStageConfig

# Features that are shown, those that add or take the most.
NUM_SHOWN = 8


@dataclass(frozen=True)
class Explanation:
    """Why an article stands where it does, against the customer's candidates on average.

    Attributes:
        article_index: Which.
        place: Among the candidates, from 1; 0 for an article that was none.
        num_candidates: How many there were.
        probability: Of a purchase, by this ranker.
        ranker: Which ranker's view this is.
        added: What each feature adds to the logit: its name, value and share, the largest first.
    """

    article_index: int
    place: int
    num_candidates: int
    probability: float
    ranker: str
    added: tuple[tuple[str, float, float], ...]


def explain_articles(
    two_stage: TwoStage, view: View, customer_index: int, articles: Sequence[int]
) -> list[Explanation]:
    """Explains articles to a customer at the cutoff.

    Args:
        two_stage: Fitted from the view.
        view: What it was fitted from.
        customer_index: Known to the view.
        articles: Article indices; the candidates' best one where there is none.

    Returns:
        One for each article and ranker.

    Raises:
        InputError: The customer has no candidate.
    """
    histories = HistoryTable(view.timelines, view.profiles)(tf.constant([customer_index], tf.int32))
    now = tf.constant(view.now[[customer_index]])
    found = two_stage.candidates(histories, now=now, exclude=tf.zeros([1, 0], tf.int32))
    article, features = found.article_index.numpy(), found.features.numpy()
    if not len(article):
        raise InputError(f"{two_stage.name} has no candidate for this customer, so there is nothing to explain.")
    score = two_stage.score(found).numpy()
    asked = list(articles) or [int(article[score.argmax()])]
    strangers = np.array([index for index in asked if index not in article], np.int32)
    if len(strangers):
        nothing = np.zeros((len(strangers), len(two_stage.describer.generators)), np.float32)
        row = np.zeros(len(strangers), np.int64)
        told = two_stage.describer(histories, now, row, tf.constant(strangers), nothing, nothing).numpy()
        article, features = np.concatenate([article, strangers]), np.concatenate([features, told])
    customer = np.full(len(article), customer_index, np.int32)
    names = (*two_stage.describer.names, *EMBEDDED)
    explained = []
    for name, ranker in two_stage.rankers.items():
        probability = tf.sigmoid(ranker(tf.constant(features), tf.constant(article), tf.constant(customer))).numpy()
        added = ranker.attribute(features, article, customer, num_compared=len(score))
        for index in asked:
            place = int(np.flatnonzero(article == index)[0])
            is_candidate = place < len(score)
            values = (*features[place].tolist(), 0.0, 0.0, 0.0)
            order = np.argsort(-np.abs(added[place]), kind="stable")
            explained.append(
                Explanation(
                    article_index=int(index),
                    place=int((score > score[place]).sum()) + 1 if is_candidate else 0,
                    num_candidates=len(score),
                    probability=float(probability[place]),
                    ranker=name,
                    added=tuple((names[column], values[column], float(added[place, column])) for column in order),
                )
            )
    return explained


def explain(run: Training, *, recommender: str, customer_id: str, article_ids: Sequence[str]) -> None:
    """Shows why articles stand where they do in a customer's list, by the recommender that was fitted before the test cutoff.

    Args:
        run: Of the pipeline; what is not fitted yet is fitted.
        recommender: Of kind `two_stage`, among `recommenders`.
        customer_id: As in the tables.
        article_ids: As in the tables; empty for the best candidate.

    Raises:
        InputError: It explains nothing, or an id is not in the tables.
    """
    config = run.config
    able = [name for name in config.recommenders if isinstance(config.generators.get(name), TwoStageConfig)]
    if recommender not in able:
        raise InputError(
            f"--recommender {recommender}: two stages alone explain what they do; `recommenders` holds "
            f"{', '.join(able) or 'none of them'}."
        )
    run.train()
    view, (customers, articles) = run.view("test"), ids_by_index(run.tables)
    customer_index = _find(customer_id, customers[: view.timelines.num_customers], what="customer")
    asked = [_find(article_id, articles[: view.articles.num_articles], what="article") for article_id in article_ids]
    two_stage = run._load(recommender)
    assert isinstance(two_stage, TwoStage)
    for found in explain_articles(two_stage, view, customer_index, asked):
        show(run.console, found, article_id=str(articles[found.article_index - FIRST_INDEX]), customer_id=customer_id)


def _find(value: str, ids: np.ndarray, *, what: str) -> int:
    places = np.flatnonzero(ids == value)
    if len(places):
        return int(places[0]) + FIRST_INDEX
    near = find_nearest(value, [str(known) for known in ids[:100_000]])
    hint = f" Did you mean `{near}`?" if near else ""
    raise InputError(f"{what} `{value}` is not among the {len(ids):,} known before the test cutoff.{hint}")


def show(console: Console, found: Explanation, *, article_id: str, customer_id: str) -> None:
    """Prints an explanation as a table."""
    where = f"place {found.place} of {found.num_candidates}" if found.place else "no candidate"
    table = Table(
        title=f"{article_id} for {customer_id}: {where}, probability {found.probability:.2%} ({found.ranker})",
        caption="against this customer's candidates on average",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("adds", justify="right")
    table.add_column("because")
    for name, value, added in found.added[:NUM_SHOWN]:
        table.add_row(describe_odds(added), describe_feature(name, value))
    rest = sum(added for _name, _value, added in found.added[NUM_SHOWN:])
    table.add_row(describe_odds(rest), f"{len(found.added) - NUM_SHOWN} further features together")
    console.print(table)
