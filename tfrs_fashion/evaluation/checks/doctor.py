"""The doctor: the run's own sceptic, who looks for leakage, collapse and mistakes before anyone believes a figure.

Each check is a function of tables and arrays in `leakage`, `collapse` or `mistakes`; here they are put in order. What each
sees, its threshold and why, and what to try: docs/doctor.md.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.collapse import (
    find_concentrated_exposure,
    find_low_rank,
    find_popularity_copy,
    find_same_list,
)
from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.checks.leakage import (
    find_beaten_repeat_oracle,
    find_foreseen_purchases,
    find_future_rows,
    find_late_generators,
    find_random_split,
    find_telling_features,
    find_test_purchases,
)
from tfrs_fashion.evaluation.checks.mistakes import (
    find_bad_scores,
    find_chance_level,
    find_constant_scores,
    find_disordered_scores,
    find_fallback,
    find_out_of_store,
    find_repeated_articles,
    find_short_lists,
    find_unknown_indices,
    find_zero_metrics,
)

# What each check looks for, in the order in which findings of one severity are told.
CHECKS = {
    "future_rows": "visible rows at or after a customer's cutoff",
    "test_purchases_in_train": "purchases to be found among the visible rows",
    "random_split": "purchases to be found that lie before visible rows of the same customer",
    "generators_saw_ranker_weeks": "generators fitted on the weeks that train a ranker",
    "labels_in_features": "features counted from the purchases that make the labels",
    "telling_feature": "a single feature that explains the labels",
    "beats_repeat_oracle": "lists as good as knowing what is bought again",
    "foresees_new_purchases": "lists that find far too much of what is new to a customer",
    "repeated_articles": "an article twice in a list",
    "unknown_indices": "customers and articles that are not in the tables",
    "scores_not_finite": "scores that are NaN or infinite",
    "scores_out_of_order": "scores that rise along a list",
    "constant_scores": "one score for everything",
    "out_of_store": "articles that are not in store",
    "short_lists": "lists that are too short",
    "zero_metrics": "a hit rate of exactly 0",
    "chance_level": "recall no better than chance",
    "answered_by_fallback": "a fallback that answers in the recommender's place",
    "equals_popularity": "popularity's list for most customers",
    "same_list_for_everyone": "one list for most customers, but by design",
    "concentrated_exposure": "lists that hardly differ between customers",
    "embedding_rank": "embeddings that use few of their directions",
}


@dataclass(frozen=True)
class Purchases:
    """Purchases on both sides of the cutoffs.

    Attributes:
        visible: Rows before the cutoffs, of the customers judged at least: `customer_index, article_index, time, basket`.
        targets: Rows to be found, likewise.
        latest: For each thing that was fitted from, such as `transactions`, each customer's latest visible instant:
            `customer_index, latest, cutoff`.
    """

    visible: pd.DataFrame
    targets: pd.DataFrame
    latest: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Answers:
    """What one recommender answered.

    Attributes:
        recommender: Its name.
        candidates: Rows of Candidates, for every customer of the targets; the first k of each list at least.
        rankable: article_index of what it may recommend: what is in store, or the new arrivals.
        candidates_new: Candidates from which what was bought is left out; None where there are none.
        figures: Its figures by metric; without `hit_rate@k` and `recall@k` these are not checked.
        is_constant: Whether it recommends the same to everyone by design, as popularity does.
        fallback: Whose articles fill its lists; None if nobody's.
        embedding: `[num_articles, dim]` of the articles it ranks; None where it has none.
    """

    recommender: str
    candidates: pd.DataFrame
    rankable: np.ndarray
    candidates_new: pd.DataFrame | None = None
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    is_constant: bool = False
    fallback: str | None = None
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class RankerTraining:
    """What a ranker was trained on.

    Attributes:
        recommender: Its name.
        fitted_as_of: For each generator of its candidates the first instant that its fit has not seen.
        first_week: Start of the first week whose purchases are labels.
        features: A row an example.
        labels: `[num_examples]`, true for a purchase.
    """

    recommender: str
    fitted_as_of: Mapping[str, datetime.datetime]
    first_week: datetime.datetime
    features: pd.DataFrame
    labels: np.ndarray


@dataclass(frozen=True)
class Examination:
    """What the doctor found, and what was looked for.

    Attributes:
        findings: Errors first, then in the order of `CHECKS`.
        checks: Names of the checks that had what they need.
    """

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]

    @property
    def passed(self) -> list[str]:
        """What was looked for and not found, in words."""
        seen = {finding.check for finding in self.findings}
        return [CHECKS[name] for name in self.checks if name not in seen]


Results = Iterable[tuple[str, Finding | Sequence[Finding] | None]]


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["customer_index", "article_index"]].drop_duplicates()


def _examine_rows(purchases: Purchases) -> Results:
    visible, targets = purchases.visible, purchases.targets
    for where, rows in purchases.latest.items():
        customers, latest, cutoff = (rows[name].to_numpy() for name in ("customer_index", "latest", "cutoff"))
        yield "future_rows", find_future_rows(customers, latest, cutoff, where=where)
    yield "test_purchases_in_train", find_test_purchases(visible, targets)
    yield "random_split", find_random_split(visible, targets)


def _examine_ranker(ranker: RankerTraining) -> Results:
    name = ranker.recommender
    late = find_late_generators(ranker.fitted_as_of, first_week=ranker.first_week, ranker=name)
    yield "generators_saw_ranker_weeks", late
    yield "telling_feature", find_telling_features(ranker.features, ranker.labels, recommender=name)


def _examine_answers(
    answers: Answers,
    *,
    judged: pd.DataFrame,
    bought: pd.DataFrame,
    num_customers: int,
    num_articles: int,
    popular: Answers | None,
    k: int,
) -> Results:
    """Runs the checks of one recommender; see `examine`.

    Args:
        answers: The recommender's.
        judged: Distinct pairs to be found.
        bought: Distinct pairs bought before.
        num_customers: Customers in the tables.
        num_articles: Articles in the tables.
        popular: Popularity's answers over the same articles, if there are any.
        k: Length of the lists.
    """
    name, candidates = answers.recommender, answers.candidates
    rankable = np.unique(answers.rankable)
    customers = np.unique(judged["customer_index"])
    with_history = np.intersect1d(customers, bought["customer_index"])
    yield "beats_repeat_oracle", find_beaten_repeat_oracle(candidates, judged, bought, k=k, recommender=name)
    best = candidates if answers.candidates_new is None else answers.candidates_new
    yield "foresees_new_purchases", find_foreseen_purchases(best, judged, bought, k=k, recommender=name)

    yield "repeated_articles", find_repeated_articles(candidates, recommender=name)
    size = {"num_customers": num_customers, "num_articles": num_articles}
    yield "unknown_indices", find_unknown_indices(candidates, **size, recommender=name)
    yield "scores_not_finite", find_bad_scores(candidates, recommender=name)
    yield "scores_out_of_order", find_disordered_scores(candidates, recommender=name)
    yield "out_of_store", find_out_of_store(candidates, rankable, bought, k=k, recommender=name)
    length = {"k": k, "num_rankable": len(rankable)}
    yield "short_lists", find_short_lists(candidates, customers, **length, recommender=name)
    if (recall := answers.figures.get(f"recall@{k}")) is not None:
        yield (
            "chance_level",
            find_chance_level(recall, num_customers=len(customers), **length, recommender=name),
        )
    if answers.fallback not in (None, name):
        filled = find_fallback(candidates, with_history, k=k, fallback=str(answers.fallback), recommender=name)
        yield "answered_by_fallback", filled

    if not answers.is_constant:
        # Where nothing was sold lately, popularity has nothing to score by.
        yield "constant_scores", find_constant_scores(candidates, recommender=name)
        copied = None
        if popular is not None:
            copied = find_popularity_copy(
                candidates,
                popular.candidates,
                with_history,
                **length,
                recommender=name,
                popularity=popular.recommender,
            )
            yield "equals_popularity", copied
        if copied is None:
            same = find_same_list(candidates, with_history, **length, recommender=name)
            yield "same_list_for_everyone", same
            if same is None:
                spread = find_concentrated_exposure(candidates, with_history, k=k, rankable=rankable, recommender=name)
                yield "concentrated_exposure", spread
    if answers.embedding is not None:
        yield "embedding_rank", find_low_rank(answers.embedding, recommender=name)


def examine(
    answers: Sequence[Answers],
    purchases: Purchases,
    *,
    num_customers: int,
    num_articles: int,
    k: int,
    rankers: Sequence[RankerTraining] = (),
) -> Examination:
    """Looks for leakage, collapse and mistakes in one run.

    Args:
        answers: Of each recommender.
        purchases: On both sides of the cutoffs.
        num_customers: Customers in the tables.
        num_articles: Articles in the tables.
        k: Length of the lists that are judged.
        rankers: What each ranker was trained on.

    Returns:
        The findings, and which checks there was something to look at for.
    """
    judged, bought = _pairs(purchases.targets), _pairs(purchases.visible)
    results = [*_examine_rows(purchases)]
    for ranker in rankers:
        results += _examine_ranker(ranker)
    constant = [given for given in answers if given.is_constant]
    for given in answers:
        popular = next((other for other in constant if np.array_equal(other.rankable, given.rankable)), None)
        results += _examine_answers(
            given,
            judged=judged,
            bought=bought,
            num_customers=num_customers,
            num_articles=num_articles,
            popular=popular,
            k=k,
        )
    hit_rates = {
        given.recommender: float(given.figures[f"hit_rate@{k}"]["value"])
        for given in answers
        if f"hit_rate@{k}" in given.figures
    }
    if hit_rates:
        num_judged = judged["customer_index"].nunique()
        results.append(("zero_metrics", find_zero_metrics(hit_rates, num_customers=num_judged, k=k)))
    order = list(CHECKS)
    findings = [
        finding for _name, found in results for finding in ([found] if isinstance(found, Finding) else found or [])
    ]
    findings.sort(key=lambda finding: (finding.severity != "error", order.index(finding.check)))
    done = {name for name, _found in results}
    return Examination(tuple(findings), tuple(name for name in order if name in done))
