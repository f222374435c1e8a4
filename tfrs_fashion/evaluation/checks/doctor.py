"""The doctor: runs all checks for leakage, collapse and mistakes on a run's results.

Each check is a function of tables and arrays in `leakage`, `collapse` or `mistakes`. docs/doctor.md lists what each looks
for, its threshold with the reason, and the suggested fix.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks import collapse, leakage, mistakes
from tfrs_fashion.evaluation.checks.finding import CHECKS, Finding


@dataclass(frozen=True)
class Purchases:
    """Purchases on both sides of the cutoffs.

    Attributes:
        visible: Rows before the cutoffs, at least those of the evaluated customers: `customer_index, article_index, time,
            basket`.
        targets: Rows of the target purchases, with the same columns.
        latest: Each customer's latest visible instant, `customer_index, latest, cutoff`, by source of the fit, such as
            `transactions`.
    """

    visible: pd.DataFrame
    targets: pd.DataFrame
    latest: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Answers:
    """The answers of one recommender.

    Attributes:
        recommender: Name of the recommender.
        candidates: Rows of Candidates for every customer of the targets, at least the first k of each list.
        rankable: article_index of articles that it may recommend: those in store, or the new arrivals.
        candidates_new: Rows of Candidates that exclude earlier purchases; None if there are none.
        metrics: Metrics with their intervals, by name; `hit_rate@k` and `recall@k` are checked if present.
        is_constant: Whether it recommends the same to everyone by design, like popularity.
        fallback: Name of the recommender that fills its lists, if any.
        embedding: `[num_articles, dim]` of the articles it ranks, if it has one.
    """

    recommender: str
    candidates: pd.DataFrame
    rankable: np.ndarray
    candidates_new: pd.DataFrame | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    is_constant: bool = False
    fallback: str | None = None
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class RankerTraining:
    """The training data of a ranker.

    Attributes:
        recommender: Name of the ranker.
        fitted_as_of: First instant that the fit has not seen, by generator of its candidates.
        first_week: Start of the first week whose purchases are labels.
        features: One row per example.
        labels: `[num_examples]` bool, true for a purchase.
    """

    recommender: str
    fitted_as_of: Mapping[str, datetime.datetime]
    first_week: datetime.datetime
    features: pd.DataFrame
    labels: np.ndarray


@dataclass(frozen=True)
class Examination:
    """The findings, and the checks that were run.

    Attributes:
        findings: Errors first, then in the order of `CHECKS`.
        checks: Names of the checks whose input was available.
    """

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]

    @property
    def passed(self) -> list[str]:
        """What the checks without a finding look for, in words."""
        failed = {finding.check for finding in self.findings}
        return [CHECKS[name].looks_for for name in self.checks if name not in failed]


Results = Iterable[tuple[str, Finding | Sequence[Finding] | None]]


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["customer_index", "article_index"]].drop_duplicates()


def _examine_rows(purchases: Purchases) -> Results:
    visible, targets = purchases.visible, purchases.targets
    for where, rows in purchases.latest.items():
        customers, latest, cutoff = (rows[name].to_numpy() for name in ("customer_index", "latest", "cutoff"))
        yield "future_rows", leakage.find_future_rows(customers, latest, cutoff, where=where)
    yield "test_purchases_in_train", leakage.find_test_purchases(visible, targets)
    yield "random_split", leakage.find_random_split(visible, targets)


def _examine_ranker(ranker: RankerTraining) -> Results:
    name = ranker.recommender
    late = leakage.find_late_generators(ranker.fitted_as_of, first_week=ranker.first_week, ranker=name)
    yield "generators_saw_ranker_weeks", late
    yield "telling_feature", leakage.find_telling_features(ranker.features, ranker.labels, recommender=name)


def _examine_answers(
    answers: Answers,
    *,
    targets: pd.DataFrame,
    bought: pd.DataFrame,
    num_customers: int,
    num_articles: int,
    popular: Answers | None,
    k: int,
) -> Results:
    """Runs the checks of one recommender; see `examine`.

    Args:
        answers: Answers of the recommender.
        targets: Distinct pairs of the targets.
        bought: Distinct pairs bought before.
        num_customers: Number of customers in the tables.
        num_articles: Number of articles in the tables.
        popular: Answers of a popularity recommender over the same articles, if there is one.
        k: Length of the lists.
    """
    name, candidates = answers.recommender, answers.candidates
    rankable = np.unique(answers.rankable)
    customers = np.unique(targets["customer_index"])
    with_history = np.intersect1d(customers, bought["customer_index"])
    yield "beats_repeat_oracle", leakage.find_beaten_repeat_oracle(candidates, targets, bought, k=k, recommender=name)
    without_bought = candidates if answers.candidates_new is None else answers.candidates_new
    yield (
        "foresees_new_purchases",
        leakage.find_foreseen_purchases(without_bought, targets, bought, k=k, recommender=name),
    )

    yield "repeated_articles", mistakes.find_repeated_articles(candidates, recommender=name)
    size = {"num_customers": num_customers, "num_articles": num_articles}
    yield "unknown_indices", mistakes.find_unknown_indices(candidates, **size, recommender=name)
    yield "scores_not_finite", mistakes.find_bad_scores(candidates, recommender=name)
    yield "scores_out_of_order", mistakes.find_disordered_scores(candidates, recommender=name)
    yield "out_of_store", mistakes.find_out_of_store(candidates, rankable, bought, k=k, recommender=name)
    length = {"k": k, "num_rankable": len(rankable)}
    yield "short_lists", mistakes.find_short_lists(candidates, customers, **length, recommender=name)
    if (recall := answers.metrics.get(f"recall@{k}")) is not None:
        yield (
            "chance_level",
            mistakes.find_chance_level(recall, num_customers=len(customers), **length, recommender=name),
        )
    if answers.fallback not in (None, name):
        filled = mistakes.find_fallback(candidates, with_history, k=k, fallback=str(answers.fallback), recommender=name)
        yield "answered_by_fallback", filled

    if not answers.is_constant:
        # A constant list may have one score for everything: without recent sales, popularity has nothing to score by.
        yield "constant_scores", mistakes.find_constant_scores(candidates, recommender=name)
        copied = None
        if popular is not None:
            copied = collapse.find_popularity_copy(
                candidates, popular.candidates, with_history, **length, recommender=name, popularity=popular.recommender
            )
            yield "equals_popularity", copied
        if copied is None:
            same = collapse.find_same_list(candidates, with_history, **length, recommender=name)
            yield "same_list_for_everyone", same
            if same is None:
                spread = collapse.find_concentrated_exposure(
                    candidates, with_history, k=k, rankable=rankable, recommender=name
                )
                yield "concentrated_exposure", spread
    if answers.embedding is not None:
        yield "embedding_rank", collapse.find_low_rank(answers.embedding, recommender=name)


def examine(
    answers: Sequence[Answers],
    purchases: Purchases,
    *,
    num_customers: int,
    num_articles: int,
    k: int,
    rankers: Sequence[RankerTraining] = (),
) -> Examination:
    """Runs all checks for leakage, collapse and mistakes on one run.

    Args:
        answers: Answers of each recommender.
        purchases: Purchases before and after the cutoffs.
        num_customers: Number of customers in the tables.
        num_articles: Number of articles in the tables.
        k: Length of the evaluated lists.
        rankers: Training data of each ranker.

    Returns:
        The findings, and the checks whose input was available.
    """
    targets, bought = _pairs(purchases.targets), _pairs(purchases.visible)
    results = [*_examine_rows(purchases)]
    for ranker in rankers:
        results += _examine_ranker(ranker)
    constant = [each for each in answers if each.is_constant]
    for each in answers:
        popular = next((other for other in constant if np.array_equal(other.rankable, each.rankable)), None)
        results += _examine_answers(
            each,
            targets=targets,
            bought=bought,
            num_customers=num_customers,
            num_articles=num_articles,
            popular=popular,
            k=k,
        )
    hit_rates = {
        each.recommender: float(each.metrics[f"hit_rate@{k}"]["value"])
        for each in answers
        if f"hit_rate@{k}" in each.metrics
    }
    if hit_rates:
        num_evaluated = targets["customer_index"].nunique()
        results.append(("zero_metrics", mistakes.find_zero_metrics(hit_rates, num_customers=num_evaluated, k=k)))
    order = list(CHECKS)
    findings = [
        finding for _name, result in results for finding in ([result] if isinstance(result, Finding) else result or [])
    ]
    findings.sort(key=lambda finding: (finding.severity != "error", order.index(finding.check)))
    completed = {name for name, _result in results}
    return Examination(tuple(findings), tuple(name for name in order if name in completed))
