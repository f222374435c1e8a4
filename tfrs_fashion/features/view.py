"""A view: what a fit may see of a split, in every form that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np

from tfrs_fashion.data.split import Split, cutoff_seconds, visible
from tfrs_fashion.features.articles import ArticleTable, make_article_table
from tfrs_fashion.features.inputs import Profiles, encode_profiles
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.vocabulary import fit_vocabulary
from tfrs_fashion.schema import FIRST_INDEX, Tables


@dataclass(frozen=True)
class View:
    """Tables, timelines and features cut at a split's cutoffs.

    Nothing in it is at or after a customer's cutoff, so whatever is fitted from it alone has not seen the future.

    Attributes:
        split: Whose cutoffs these are.
        transactions: The visible transactions.
        timelines: The customers known, with the events before their cutoffs.
        articles: The articles known.
        profile_vocabulary: Values of each profile feature among the customers seen.
        profiles: See `features.inputs.Profiles`.
        now: `[num_customers + 2]` int64 seconds, each customer's cutoff.
    """

    split: Split
    transactions: ibis.Table
    timelines: Timelines
    articles: ArticleTable
    profile_vocabulary: dict[str, list[str]]
    profiles: Profiles
    now: np.ndarray


def make_view(
    tables: Tables, timelines: Timelines, split: Split, *, categorical: Sequence[str], in_store_days: int
) -> View:
    """Cuts tables and timelines at a split's cutoffs.

    Args:
        tables: Indexed tables.
        timelines: All customers, with all their events.
        split: The cutoffs.
        categorical: Columns of articles to encode.
        in_store_days: An article is in store if it was sold in so many days before the cutoff.

    Raises:
        InputError: The articles lack a categorical column.
    """
    transactions = visible(split, tables.transactions)
    cutoff = cutoff_seconds(split, timelines.num_customers)
    cut = timelines.before(cutoff)
    vocabulary = {name: fit_vocabulary(values) for name, values in cut.profile.items()}
    return View(
        split=split,
        transactions=transactions,
        timelines=cut,
        articles=make_article_table(
            tables.articles, transactions, as_of=split.as_of, categorical=categorical, in_store_days=in_store_days
        ),
        profile_vocabulary=vocabulary,
        profiles=encode_profiles(cut, vocabulary),
        now=cutoff[: cut.num_customers + FIRST_INDEX],
    )
