"""Findings of the doctor, and the table of its checks: what each looks for, how it reports and what it advises."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["leakage", "mistake", "collapse"]
Severity = Literal["error", "warning"]

# A share of fewer customers than this is mostly noise.
MIN_CUSTOMERS = 20


@dataclass(frozen=True)
class Finding:
    """A problem that one check has found.

    Attributes:
        kind: `leakage`, the metrics are too good to be true; `mistake`, something is built wrongly; `collapse`, a
            recommender no longer distinguishes customers.
        severity: `error`, the recommender's metrics are meaningless until it is fixed; `warning`, needs a look.
        recommender: Name of the recommender; None if the finding concerns the whole run.
        check: Name of the check, a key of `CHECKS`.
        seen: The observation, with its numbers.
        advice: Suggested fix.
    """

    kind: Kind
    severity: Severity
    recommender: str | None
    check: str
    seen: str
    advice: str

    @property
    def sentence(self) -> str:
        """The finding on one line, for a terminal."""
        about = f"{self.recommender}: " if self.recommender else ""
        return f"{self.severity}: {about}{self.seen} {self.advice}"


@dataclass(frozen=True)
class Check:
    """How a check reports.

    Attributes:
        kind: See `Finding`.
        looks_for: The problem in a few words, for the list of checks that passed.
        seen: Template of `Finding.seen`.
        advice: Template of `Finding.advice`.
        severity: Severity of its findings, unless `make_finding` raises it.
    """

    kind: Kind
    looks_for: str
    seen: str
    advice: str
    severity: Severity = "error"


_FIND_LEAK = "Look for the window's purchases in its features, histories, vocabularies and neighbours."
_BAD_ROWS = "{bad:,} of {total:,} candidates "
_SAMPLES = "(customer_index, article_index) e.g. {samples}."

# Findings of equal severity are reported in this order.
CHECKS = {
    "future_rows": Check(
        "leakage",
        "visible rows at or after a customer's cutoff",
        "{late:,} of {total:,} customers have visible {where} at or after their cutoff, e.g. customer_index {samples}.",
        "Cut the rows at the cutoff before anything is fitted, counted or looked up.",
    ),
    "test_purchases_in_train": Check(
        "leakage",
        "target purchases among the visible rows",
        "{count:,} of {total:,} target purchases are also visible rows, by customer, article and {by}.",
        "Remove the window's rows from the training data; look for a file that was read or appended twice.",
    ),
    "random_split": Check(
        "leakage",
        "target purchases that precede visible rows of the same customer",
        "{earlier:,} of {total:,} target purchases ({share:.0%}) precede a visible purchase of the same customer, as after a "
        "random split.",
        "Split by time: everything before a cutoff is visible, everything from it on is a target.",
    ),
    "generators_saw_ranker_weeks": Check(
        "leakage",
        "generators fitted on the weeks that train a ranker",
        "{generator} was fitted on rows until {as_of}, but the ranker's labels begin on {first_week}.",
        "Fit {generator} on the rows before each week that trains the ranker, or begin those weeks later.",
    ),
    "labels_in_features": Check(
        "leakage",
        "features counted from the purchases that make the labels",
        "Features count purchases until {seen_until}, but the labels begin on {labels_from}.",
        "Count features from purchases before a cutoff, and labels from purchases after it.",
    ),
    "telling_feature": Check(
        "leakage",
        "a single feature that explains the labels",
        "Feature `{feature}` alone has an AUC of {area:.4f} over {total:,} examples; the best other feature has {other:.4f}.",
        "Find out when `{feature}` is known, and drop it if that is after the purchase.",
    ),
    "beats_repeat_oracle": Check(
        "leakage",
        "lists as good as knowing which articles are bought again",
        "For {customers:,} customers who bought something again, map@{k} is {value:.4f}. An oracle that knows exactly which of "
        "more than {k} articles are bought again reaches {oracle:.4f}.",
        _FIND_LEAK,
    ),
    "foresees_new_purchases": Check(
        "leakage",
        "lists that contain too many purchases of articles new to the customer",
        "The first {k} contain {share:.1%} of {total:,} purchases of articles that the customer had never bought. The best "
        "single list for everyone, chosen in hindsight, contains {hindsight:.1%}; the odds are {odds:.0f} times as high.",
        _FIND_LEAK,
    ),
    "repeated_articles": Check(
        "mistake",
        "lists that contain an article twice",
        _BAD_ROWS + "repeat an article of the same list; " + _SAMPLES,
        "Drop duplicates before taking the top k: an article may occur twice in the index, or in two sources.",
    ),
    "unknown_indices": Check(
        "mistake",
        "customers and articles that are not in the tables",
        _BAD_ROWS + "refer to a customer or an article that is not in the tables; " + _SAMPLES,
        "Make candidates from the same tables as the targets; an artifact of other tables has other indices.",
    ),
    "scores_not_finite": Check(
        "mistake",
        "scores that are NaN or infinite",
        _BAD_ROWS + "have a NaN or infinite score; " + _SAMPLES,
        "The model has diverged, or a feature is not finite: lower the learning rate, check the features.",
    ),
    "scores_out_of_order": Check(
        "mistake",
        "scores that rise along a list",
        _BAD_ROWS + "score higher than the one before them; " + _SAMPLES,
        "Rank by score, highest first: a distance, or an ascending sort, puts the worst articles first.",
    ),
    "constant_scores": Check(
        "mistake",
        "the same score for all candidates",
        "All {total:,} candidates have the score {score:g}.",
        "The order is meaningless: look for a dead layer, features that are all missing, or weights that were not loaded.",
    ),
    "out_of_store": Check(
        "mistake",
        "articles that are not in store",
        "{out:,} of {total:,} places ({share:.1%}) show articles that are not in store and that the customer had not bought; "
        + _SAMPLES,
        "Rank only articles in store; exclude the others before taking the top k.",
        "warning",
    ),
    "short_lists": Check(
        "mistake",
        "lists that are too short",
        "{short:,} of {total:,} customers get fewer than {expected} articles, {empty:,} of them none.",
        "Exclude articles before taking the top k, and fill lists from a fallback.",
        "warning",
    ),
    "zero_metrics": Check(
        "mistake",
        "a hit rate of exactly 0",
        "None of {customers:,} customers bought any of their {k} articles: every metric is 0.",
        "Compare the ids of candidates and targets: strings or integers, leading zeros, shifted indices.",
    ),
    "chance_level": Check(
        "mistake",
        "recall no better than chance",
        "recall@{k} is {value:.4f} (from {low:.4f}) over {customers:,} customers; {k} of {rankable:,} articles drawn at random "
        "reach {chance:.4f}.",
        "Look for shifted indices, or customers who get each other's lists; otherwise the model has learned nothing.",
        "warning",
    ),
    "answered_by_fallback": Check(
        "mistake",
        "a fallback that answers in the recommender's place",
        "{filled:,} of {total:,} customers with a history get only articles of {fallback}: the metrics are mostly its own.",
        "Check that histories reach the recommender, that it knows their articles, and that it answers.",
        "warning",
    ),
    "equals_popularity": Check(
        "collapse",
        "popularity's list for most customers",
        "{same:,} of {total:,} customers with a history get the {k} articles of {popularity}.",
        "Check whether the recommender answers at all, or its fallback does. A model that has learned only popularity needs a "
        "logQ correction, or features that distinguish customers.",
    ),
    "same_list_for_everyone": Check(
        "collapse",
        "the same list for most customers",
        "{same:,} of {total:,} customers with a history get the same {k} articles.",
        "Check that the query differs between customers. Normalise the embeddings, lower the temperature, apply a logQ "
        "correction for sampling.",
    ),
    "concentrated_exposure": Check(
        "collapse",
        "lists that hardly differ between customers",
        "The lists of {customers:,} customers with a history are as concentrated (Gini {gini:.4f}) as if the same {worth:.0f} "
        "of {rankable:,} articles were shown to everyone; a single list for all would show {k}.",
        "Apply a logQ correction for sampling, lower the temperature, and compare its recall with that of popularity.",
        "warning",
    ),
    "embedding_rank": Check(
        "collapse",
        "embeddings that use few of their dimensions",
        "{detail}",
        "Lower the learning rate, normalise, use more negatives; check that the features differ between articles.",
    ),
}


def make_finding(check: str, recommender: str | None = None, *, is_error: bool = False, **values: Any) -> Finding:
    """Makes the finding of a check.

    Args:
        check: Key of `CHECKS`.
        recommender: Name of the recommender; None for the whole run.
        is_error: Whether the finding is an error although the check's severity is `warning`.
        **values: Values of the check's templates.
    """
    row = CHECKS[check]
    seen, advice = row.seen.format(**values), row.advice.format(**values)
    return Finding(row.kind, "error" if is_error else row.severity, recommender, check, seen, advice)
