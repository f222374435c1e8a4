"""The doctor: which checks run, the order of findings, and their section in the report."""

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.checks import doctor
from tfrs_fashion.evaluation.checks.doctor import Answers, Examination, Purchases, RankerTraining, examine
from tfrs_fashion.evaluation.checks.finding import CHECKS, Finding
from tfrs_fashion.evaluation.report.page import write_report
from tfrs_fashion.schema import CANDIDATE_COLUMNS

CUSTOMERS = range(2, 32)
K = 3


def make_candidates(shift: int = 1, source: str = "als") -> pd.DataFrame:
    """Makes lists of three of twenty articles for each customer."""
    rows = [
        (customer, 2 + (shift * customer + place) % 20, 1 + place, float(-place), source)
        for customer in CUSTOMERS
        for place in range(K)
    ]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def make_purchases(latest: int = 9) -> Purchases:
    """Makes purchases where everyone bought one article at 9 and buys it again at 10, the cutoff."""
    rows = pd.DataFrame({"customer_index": CUSTOMERS, "article_index": [2 + customer % 20 for customer in CUSTOMERS]})
    customers = rows[["customer_index"]]
    return Purchases(
        visible=rows.assign(time=9, basket="before"),
        targets=rows.assign(time=10, basket="after"),
        latest={"transactions": customers.assign(latest=latest, cutoff=10)},
    )


def make_answers(**changes: Any) -> Answers:
    values: dict[str, Any] = {
        "recommender": "als",
        "candidates": make_candidates(),
        "rankable": np.arange(2, 22),
        "fallback": "popularity_7d",
        "metrics": {f"hit_rate@{K}": {"value": 1.0}, f"recall@{K}": {"value": 1.0, "low": 1.0}},
        "embedding": np.eye(20),
    }
    return Answers(**{**values, **changes})


POPULAR = make_answers(
    recommender="popularity_7d", candidates=make_candidates(0, "popularity_7d"), is_constant=True, embedding=None
)
RANKER = RankerTraining(
    "two_stage",
    {"als": datetime.datetime(2024, 1, 2)},
    datetime.datetime(2024, 1, 1),
    pd.DataFrame({"label": [0.0] * 100 + [1.0] * 100}),
    np.repeat([False, True], 100),
)


def run_checks(*answers: Answers, purchases: Purchases | None = None, **options: Any) -> Examination:
    return examine(
        answers or (POPULAR, make_answers()),
        purchases or make_purchases(),
        num_customers=30,
        num_articles=20,
        k=K,
        **options,
    )


def test_healthy_run_has_no_finding_and_runs_all_checks_except_those_of_rankers() -> None:
    found = run_checks()
    assert found.findings == ()
    not_here = {"generators_saw_ranker_weeks", "labels_in_features", "telling_feature"}
    assert list(found.checks) == [name for name in CHECKS if name not in not_here]
    assert len(found.passed) == len(CHECKS) - 3


def test_checks_without_their_input_are_not_listed_as_run() -> None:
    found = run_checks(make_answers(metrics={}, fallback=None, embedding=None))
    assert {"zero_metrics", "chance_level", "answered_by_fallback", "embedding_rank", "equals_popularity"}.isdisjoint(
        found.checks
    )
    # A constant list is the same for everyone by design.
    assert {"constant_scores", "same_list_for_everyone", "concentrated_exposure", "answered_by_fallback"}.isdisjoint(
        run_checks(POPULAR).checks
    )


def test_findings_are_ordered_by_severity_and_then_by_check() -> None:
    bad = make_candidates()
    bad.loc[bad["rank"] == 2, "article_index"] = 22  # a new article, out of store: a third of all places
    bad.loc[3, "score"] = np.nan
    found = run_checks(POPULAR, make_answers(candidates=bad), purchases=make_purchases(latest=10), rankers=[RANKER])
    assert [(finding.severity, finding.check) for finding in found.findings] == [
        ("error", "future_rows"),
        ("error", "generators_saw_ranker_weeks"),
        ("error", "telling_feature"),
        ("error", "unknown_indices"),
        ("error", "scores_not_finite"),
        ("warning", "out_of_store"),
    ]
    assert "articles that are not in store" not in found.passed
    assert "lists that are too short" in found.passed


def test_collapse_is_reported_once() -> None:
    # Popularity's list is also the same for everyone, and maximally concentrated.
    copy = make_answers(candidates=make_candidates(0))
    assert [finding.check for finding in run_checks(POPULAR, copy).findings] == ["equals_popularity"]
    assert [finding.check for finding in run_checks(copy).findings] == ["same_list_for_everyone"]


def test_popularity_over_other_articles_is_not_compared() -> None:
    siblings = dataclasses.replace(POPULAR, recommender="popularity_siblings", rankable=np.arange(2, 19))
    assert "equals_popularity" not in run_checks(siblings, make_answers()).checks


def test_foreseen_purchases_are_searched_in_candidates_without_earlier_purchases() -> None:
    rows = make_purchases()
    nothing = dataclasses.replace(rows, visible=rows.visible.assign(article_index=99))
    targets = pd.concat(
        [nothing.targets.assign(article_index=nothing.targets["article_index"] + step) for step in (0, 1)]
    )
    purchases = dataclasses.replace(nothing, targets=targets)
    misses = make_candidates().assign(article_index=100)
    found = run_checks(
        make_answers(candidates=misses, candidates_new=make_candidates(), metrics={}), purchases=purchases
    )
    assert "foresees_new_purchases" in {finding.check for finding in found.findings}
    found = run_checks(
        make_answers(candidates=make_candidates(), candidates_new=misses, metrics={}), purchases=purchases
    )
    assert "foresees_new_purchases" not in {finding.check for finding in found.findings}


def test_every_check_is_documented(root: Path) -> None:
    page = (root / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [name for name in CHECKS if f"| `{name}` |" not in page] == []
    assert doctor.__doc__ is not None
    assert "docs/doctor.md" in doctor.__doc__


FINDING = Finding("leakage", "error", "als", "foresees_new_purchases", "The <first> 12 hold 80%.", "Look for it.")


def report(folder: Path, examination: Examination | None) -> tuple[dict[str, Any], str]:
    metrics, page = write_report(folder, split={}, customers=30, artifact={}, recommenders={}, examination=examination)
    return json.loads(metrics.read_text(encoding="utf-8")), page.read_text(encoding="utf-8")


def test_report_shows_findings_with_advice(tmp_path: Path) -> None:
    checks = ("future_rows", "foresees_new_purchases")
    document, page = report(tmp_path, Examination((FINDING, FINDING), checks))
    assert document["findings"] == [dataclasses.asdict(FINDING)] * 2
    assert document["checks"] == list(checks)
    assert Finding(**document["findings"][0]) == FINDING
    assert "2 findings." in page
    assert "Error: leakage in als" in page
    assert "The &lt;first&gt; 12 hold 80%." in page
    assert "What to try: Look for it." in page
    assert "Checked and not found: visible rows at or after a customer&#39;s cutoff." in page
    assert "No leakage" not in page


def test_report_without_findings_lists_the_passed_checks(tmp_path: Path) -> None:
    document, page = report(tmp_path, Examination((), ("short_lists", "zero_metrics")))
    assert document["findings"] == []
    assert "No leakage, collapse or mistake was found." in page
    assert "Checked and not found: lists that are too short; a hit rate of exactly 0." in page


def test_report_without_examination_has_no_doctor_section(tmp_path: Path) -> None:
    document, page = report(tmp_path, None)
    assert "findings" not in document
    assert "Doctor" not in page


@pytest.mark.parametrize(("recommender", "about"), [("als", "als: "), (None, "")])
def test_sentence_of_a_finding_names_the_recommender_if_any(recommender: str | None, about: str) -> None:
    found = dataclasses.replace(FINDING, recommender=recommender)
    assert found.sentence == f"error: {about}The <first> 12 hold 80%. Look for it."
