"""A view: everything that a fit may see at a split's cutoffs, in the forms that models need."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import ibis
import numpy as np
from ibis import _

from tfrs_fashion.data.split import Split, cutoff_seconds, seconds_since_1970, visible
from tfrs_fashion.features.article_weeks import ArticleWeeks, make_article_weeks, read_article_weeks
from tfrs_fashion.features.articles import ArticleTable, check_article_columns, make_article_table, read_values
from tfrs_fashion.features.hashed_words import HashedWords, hash_texts
from tfrs_fashion.features.history_lookups import (
    HistoryLookups,
    add_stores,
    check_encoded,
    check_sections,
    make_history_lookups,
)
from tfrs_fashion.features.inputs import Profiles, encode_profiles
from tfrs_fashion.features.timelines import Timelines, check_profile_columns
from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX, MAX_DESCRIPTION, OUT_OF_VOCABULARY_INDEX, RowCount, Tables, check_names
from tfrs_fashion.settings.base import FeaturesConfig, RolesConfig


@dataclass(frozen=True)
class View:
    """Tables, timelines and features cut at a split's cutoffs.

    It contains nothing at or after a customer's cutoff, so a model fitted from it alone cannot see the future.

    Attributes:
        split: The split that sets the cutoffs.
        tables: Indexed tables with the visible transactions.
        timelines: The customers known at the cutoff, with the events before their cutoffs.
        articles: The articles known at the cutoff.
        profile_vocabulary: The values of each profile feature that enough customers with a visible purchase share.
        profiles: The encoded profiles of the customers.
        now: `[num_customers + 2]` int64 seconds since 1970, each customer's cutoff.
        lookups: Lookups of the history features; None if they are disabled.
        category: Column of articles within which weekly features compare; None if weekly features are disabled.
        week_days: Days per week.
        num_text_buckets: Number of hash buckets for the words of descriptions; 0 disables the text.
        in_store_days: Days before the cutoff in which a sale keeps an article in store.
        roles: The columns of articles that have a role.
        counts: Number of customers with a rare value, by profile feature.
        words: The hashed words of all articles, by number of buckets. Views of the same tables share them, since they depend
            on each article's own text and not on a cutoff.
    """

    split: Split
    tables: Tables
    timelines: Timelines
    articles: ArticleTable
    profile_vocabulary: dict[str, list[str]]
    profiles: Profiles
    now: np.ndarray
    lookups: HistoryLookups | None
    category: str | None
    week_days: int = 7
    num_text_buckets: int = 0
    in_store_days: int = 28
    roles: RolesConfig = field(default_factory=RolesConfig)
    counts: tuple[RowCount, ...] = ()
    words: dict[int, HashedWords] = field(default_factory=dict)

    @property
    def transactions(self) -> ibis.Table:
        """The visible transactions."""
        return self.tables.transactions

    def read_words(self, num_buckets: int) -> HashedWords:
        """Returns the hashed words of the descriptions of the articles known: `[num_articles + 2]` texts, the first two empty.

        Args:
            num_buckets: Number of hash buckets.
        """
        if num_buckets not in self.words:
            cut = self.tables.articles.select("article_index", description=_.description.left(MAX_DESCRIPTION))
            texts = itertools.chain([""] * FIRST_INDEX, read_values(cut, "description"))
            self.words[num_buckets] = hash_texts(texts, num_buckets=num_buckets)
        return self.words[num_buckets].first(self.articles.num_articles + FIRST_INDEX)

    def read_weeks(self, num_weeks: int) -> ArticleWeeks:
        """Computes the weekly features of the articles at the start of the last weeks; not cached, since they are large.

        Args:
            num_weeks: Number of weeks before the cutoff.
        """
        num_articles = self.articles.num_articles
        if self.category is None:
            no_features = np.zeros((num_weeks + 1, num_articles + FIRST_INDEX, 0), np.float32)
            return ArticleWeeks(no_features, (), seconds_since_1970(self.split.as_of), self.week_days)
        table = make_article_weeks(
            self.tables.articles,
            self.tables.transactions,
            self.tables.customers,
            as_of=self.split.as_of,
            num_weeks=num_weeks,
            week_days=self.week_days,
            category=self.category or None,
        )
        return read_article_weeks(
            table, as_of=self.split.as_of, num_articles=num_articles, num_weeks=num_weeks, week_days=self.week_days
        )


def check_features(tables: Tables, features: FeaturesConfig) -> None:
    """Checks that the tables have the columns and values that the feature settings name.

    Args:
        tables: Indexed tables.
        features: The feature settings.

    Raises:
        InputError: A column is missing or not numeric, a role names a column that is not encoded, or no article has any of the
            sections declared for women, men or children.
    """
    check_profile_columns(tables.customers, profile=features.profile, profile_numbers=features.profile_numbers)
    check_article_columns(
        tables.articles, categorical=features.categorical, numbers=features.numbers, sets=features.sets
    )
    roles = features.roles
    for role in ("colour", "garment_group", "section", "section_group", "category"):
        column = getattr(roles, role)
        check_names(tables.articles, [column] if column else [], setting=f"features.roles.{role}", where="articles")
    check_sections(tables.articles, roles)
    if features.history:
        check_encoded(features.categorical, roles)


def make_view(
    tables: Tables,
    timelines: Timelines,
    split: Split,
    *,
    categorical: Sequence[str],
    numbers: Sequence[str] = (),
    sets: Sequence[str] = (),
    set_separator: str = "|",
    min_articles: int = 2,
    min_customers: int = 1,
    roles: RolesConfig | None = None,
    history: bool = True,
    article_weeks: bool = True,
    week_days: int = 7,
    num_text_buckets: int = 0,
    vectors: np.ndarray | None = None,
    words: dict[int, HashedWords] | None = None,
    in_store_days: int,
    never_sold_in_store: bool = False,
) -> View:
    """Cuts tables and timelines at a split's cutoffs.

    Args:
        tables: Indexed tables.
        timelines: All customers, with all their events.
        split: The split that sets the cutoffs.
        categorical: Categorical columns of articles to encode.
        numbers: Numeric columns of articles.
        sets: Columns of articles that hold several values per article.
        set_separator: Separator between these values.
        min_articles: Minimum number of sold articles that share a value; see `make_article_table`.
        min_customers: Minimum number of customers with a visible purchase that share a profile value or a store; rarer ones are
            out of vocabulary. So few customers teach a model hardly anything, and each value costs a row of weights.
        roles: The columns of articles that have a role.
        history: Whether the view has history features.
        article_weeks: Whether the view has weekly article features.
        week_days: Days per week.
        num_text_buckets: Hash buckets for the words of descriptions; 0 leaves the text out.
        vectors: `[num_articles + 2, any]` float32 of all articles; see `features.content_vectors`.
        words: The hashed words of another view of the same tables, to be shared; see `View`.
        in_store_days: Days before the cutoff in which a sale keeps an article in store; see `make_article_table`.
        never_sold_in_store: Whether articles without dates that were never sold are in store; see `make_article_table`.

    Raises:
        InputError: The articles lack a column, or a role names one that is not encoded.
    """
    roles = roles or RolesConfig()
    transactions = visible(split, tables.transactions)
    cutoff = cutoff_seconds(split, timelines.num_customers)
    cut = timelines.before(cutoff)
    has_bought = np.diff(cut.row_splits) > 0
    bought = {name: values[has_bought] for name, values in cut.profile.items()}
    vocabulary = {name: fit_vocabulary(values, min_count=min_customers) for name, values in bought.items()}
    articles = make_article_table(
        tables.articles,
        transactions,
        as_of=split.as_of,
        categorical=categorical,
        numbers=numbers,
        sets=sets,
        set_separator=set_separator,
        min_articles=min_articles,
        in_store_days=in_store_days,
        never_sold_in_store=never_sold_in_store,
    )
    if vectors is not None:
        articles = replace(articles, vectors=vectors[: articles.num_articles + FIRST_INDEX])
    lookups = None
    if history:
        lookups = add_stores(make_history_lookups(articles, roles), cut, min_customers=min_customers)
    return View(
        split=split,
        tables=replace(tables, transactions=transactions),
        timelines=cut,
        articles=articles,
        profile_vocabulary=vocabulary,
        profiles=encode_profiles(cut, vocabulary),
        now=cutoff[: cut.num_customers + FIRST_INDEX],
        lookups=lookups,
        category=roles.category if article_weeks else None,
        week_days=week_days,
        num_text_buckets=num_text_buckets,
        in_store_days=in_store_days,
        roles=roles,
        words={} if words is None else words,
        counts=tuple(
            count for name, values in bought.items() if (count := _count_rare(name, values, vocabulary[name])).rows
        ),
    )


def _count_rare(name: str, values: np.ndarray, vocabulary: Sequence[str]) -> RowCount:
    """Counts the customers whose value is too rare for the vocabulary; the rule names the number of such values."""
    is_rare = look_up(values, vocabulary) == OUT_OF_VOCABULARY_INDEX
    num_values = len(set(values[is_rare]))
    return RowCount("customers", f"`{name}`: {num_values:,} value(s) of too few customers", int(is_rare.sum()))
