"""Checks of Candidates and TargetRanks tables before anything is measured."""

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.pair_keys import count_runs, pair_keys
from tfrs_fashion.schema import CANDIDATE_COLUMNS, FIRST_INDEX, MAX_INT32, TARGET_RANK_COLUMNS, InputError

_INTEGER_COLUMNS = ("customer_index", "article_index", "rank", "num_ranked")


def _check_columns(table: pd.DataFrame, columns: list[str], *, where: str, what: str) -> None:
    """Raises an `InputError` if columns are missing, or indices and ranks are not whole numbers of 32 bits."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{where}: {what}s lack column(s) {', '.join(missing)}; expected {columns}.")
    for name in (name for name in columns if name in _INTEGER_COLUMNS):
        values = table[name].to_numpy()
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"{where}: column `{name}` of the {what}s has type {values.dtype}, expected whole numbers. A missing value "
                "turns them into fractions: drop those rows."
            )
        if len(values) and (values.min() < 0 or values.max() > MAX_INT32):
            raise InputError(
                f"{where}: column `{name}` of the {what}s runs from {values.min()} to {values.max()}; expected 0 to "
                f"{MAX_INT32:,}."
            )


def _check_rows(table: pd.DataFrame, rules: list[tuple[np.ndarray, str]], *, where: str, what: str) -> None:
    """Raises an `InputError` that lists every broken rule with its count and examples."""
    messages = []
    for bad, words in rules:
        if count := int(bad.sum()):
            rows = table.loc[bad].head(5)
            pairs = zip(rows["customer_index"].tolist(), rows["article_index"].tolist(), strict=True)
            samples = ", ".join(map(repr, pairs))
            messages.append(f"{count:,} {what} row(s) {words}; (customer_index, article_index) e.g. {samples}.")
    if messages:
        raise InputError(f"{where}: {' '.join(messages)}")


def _is_unknown(index: np.ndarray, number: int | None) -> np.ndarray:
    is_unknown = index < FIRST_INDEX
    return is_unknown if number is None else is_unknown | (index >= number + FIRST_INDEX)


def _is_repeated(keys: np.ndarray) -> np.ndarray:
    """Marks the rows whose key occurs in an earlier row."""
    repeated = np.zeros(len(keys), dtype=bool)
    order = np.argsort(keys, kind="stable")
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def check_candidates(
    candidates: pd.DataFrame, *, num_articles: int, num_customers: int | None = None, where: str
) -> None:
    """Checks a Candidates table.

    Args:
        candidates: `CANDIDATE_COLUMNS`.
        num_articles: Number of known articles, so valid indices are `FIRST_INDEX .. num_articles + 1`.
        num_customers: Number of known customers, likewise; None accepts any index from `FIRST_INDEX` on.
        where: File or recommender for messages.

    Raises:
        InputError: Columns are missing or not whole numbers; or, listed together with counts: an article is repeated in a
            customer's list, ranks are not 1, 2, 3, …, a score is NaN, a source is missing, or a customer or an article is
            unknown.
    """
    _check_columns(candidates, list(CANDIDATE_COLUMNS), where=where, what="candidate")
    article_index, customer_index = (candidates[name].to_numpy() for name in ("article_index", "customer_index"))
    places = pair_keys(candidates, key="rank")
    order = np.argsort(places, kind="stable")
    _customers, starts, lengths = count_runs(places[order] >> 32)
    expected = np.empty(len(order), dtype=np.int64)
    expected[order] = np.arange(len(order)) - np.repeat(starts, lengths) + 1
    rules = [
        (np.isnan(candidates["score"].to_numpy(dtype=np.float64)), "with a NaN score"),
        (_is_unknown(article_index, num_articles), "with an unknown article"),
        (_is_unknown(customer_index, num_customers), "with an unknown customer"),
        (_is_repeated(pair_keys(candidates)), "that repeat an article"),
        (candidates["rank"].to_numpy() != expected, "whose ranks are not 1, 2, 3, …"),
        (candidates["source"].isna().to_numpy(), "without a source"),
    ]
    _check_rows(candidates, rules, where=where, what="candidate")


def check_target_ranks(ranks: pd.DataFrame, *, num_articles: int, where: str) -> None:
    """Checks a TargetRanks table of one recommender.

    Equal ranks are refused: ties in the score must be broken by something else, such as the article, or a recommender
    with one score for everything would rank every target first.

    Args:
        ranks: `TARGET_RANK_COLUMNS`: each target's rank for the customer, and the number of ranked articles.
        num_articles: Number of known articles, so valid indices are `FIRST_INDEX .. num_articles + 1`.
        where: File or recommender for messages.

    Raises:
        InputError: Columns are missing or not whole numbers; or, listed together with counts: a customer or an article
            is unknown, a target is repeated, a rank is shared or lies outside 1 to `num_ranked`, a customer has several
            `num_ranked`, or bought all that was ranked.
    """
    _check_columns(ranks, list(TARGET_RANK_COLUMNS), where=where, what="target rank")
    customers = ranks["customer_index"].to_numpy()
    rank, num_ranked = ranks["rank"].to_numpy(), ranks["num_ranked"].to_numpy()
    _known, row, num_targets = np.unique(customers, return_inverse=True, return_counts=True)
    largest = np.zeros(len(num_targets), dtype=np.int64)
    np.maximum.at(largest, row, num_ranked)
    rules = [
        (_is_unknown(ranks["article_index"].to_numpy(), num_articles), "with an unknown article"),
        (_is_unknown(customers, None), "with an unknown customer"),
        (_is_repeated(pair_keys(ranks)), "that repeat a target"),
        (_is_repeated(pair_keys(ranks, key="rank")), "whose rank another target of the customer has"),
        ((rank < 1) | (rank > num_ranked), "whose rank lies outside 1 to `num_ranked`"),
        (num_ranked != largest[row], "whose `num_ranked` is not the customer's"),
        (num_targets[row] >= largest[row], "of customers who bought everything that was ranked"),
    ]
    _check_rows(ranks, rules, where=where, what="target rank")
