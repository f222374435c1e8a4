"""Lookup tables of the history features, fitted before a cutoff, and the names of these features."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis
import numpy as np

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.vocabulary import look_up
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount
from tfrs_fashion.settings.base import RolesConfig

# Channels are few and numbered from 1; higher ids share the out-of-vocabulary index.
MAX_SALES_CHANNEL_ID = 16
MAX_SECTION_SHARES = 32
# A favourite among more values would say little, and counting them takes `[batch, values]` of memory.
MAX_ROLE_VALUES = 10_000


@dataclass(frozen=True)
class HistoryLookups:
    """What the history features look up about articles and stores; fitted before the cutoff.

    Attributes:
        index: `[num_articles + 2]` int32 indices into the vocabulary, by declared role (`colour`, `garment_group`, `section`);
            and `store`, `[num_stores + 2]`, if there are stores. NumPy arrays, or variables inside a `HistoryFeatureLayer`.
        vocabulary: The values of each of these; value i has the index `FIRST_INDEX + i`.
        section_shares: The sections that have a share feature of their own, those of most articles first.
        women: Sections for women; empty if none are declared.
        men: Sections for men.
        kids: Sections for children.
    """

    index: dict[str, Any]
    vocabulary: dict[str, list[str]]
    section_shares: tuple[str, ...]
    women: tuple[str, ...]
    men: tuple[str, ...]
    kids: tuple[str, ...]

    def size(self, role: str) -> int:
        """Returns the number of indices of a role."""
        return len(self.vocabulary[role]) + FIRST_INDEX


def _declared(roles: RolesConfig) -> dict[str, tuple[str, ...]]:
    declared = {"women": roles.women, "men": roles.men, "kids": roles.kids}
    return {part: values for part, values in declared.items() if values}


def _list_sections(articles: ibis.Table, roles: RolesConfig) -> list[str]:
    """Returns the sections of the whole catalogue, since at an early cutoff a section may not have been sold yet."""
    if not roles.section or not _declared(roles):
        return []
    column = articles[roles.section].cast("string")
    return sorted(articles.filter(column.notnull()).select(section=column).distinct().execute()["section"])


def check_sections(articles: ibis.Table, roles: RolesConfig) -> None:
    """Checks that the sections declared for women, men and children have articles.

    A misspelt section would otherwise give a feature that is always 0.

    Args:
        articles: The whole catalogue, with the column that `roles.section` names.
        roles: The declared roles.

    Raises:
        InputError: One of the lists names no section that has an article, or no column is declared as the section.
    """
    sections = _list_sections(articles, roles)
    for part, values in _declared(roles).items():
        if not set(values) & set(sections):
            known = f"`{roles.section}` has {len(sections):,}: {_show(sections)}" if roles.section else "it names none"
            raise InputError(
                f"features.roles.{part}: {_show(values)} should be values of the column `features.roles.section`, but "
                f"no article has one of them; {known}. Spell them as the articles do, or leave the list empty."
            )


def list_absent_sections(articles: ibis.Table, roles: RolesConfig) -> tuple[RowCount, ...]:
    """Returns a row count of 0 for each declared section without articles: it may be misspelt, or a future section.

    Args:
        articles: The whole catalogue, which passed `check_sections`.
        roles: The declared roles.
    """
    sections = _list_sections(articles, roles)
    return tuple(
        RowCount("articles", f"with the `{roles.section}` {value!r}, which `features.roles.{part}` names", 0)
        for part, values in _declared(roles).items()
        for value in values
        if value not in sections
    )


def _columns(roles: RolesConfig) -> dict[str, str]:
    """Returns the columns of the declared roles that history features read, by role."""
    columns = {"colour": roles.colour, "garment_group": roles.garment_group, "section": roles.section}
    return {role: column for role, column in columns.items() if column}


def check_encoded(categorical: Collection[str], roles: RolesConfig) -> None:
    """Checks that the columns that history features read are encoded.

    Args:
        categorical: The encoded columns of articles.
        roles: The declared roles.

    Raises:
        InputError: A role names a column that is not encoded.
    """
    for role, column in _columns(roles).items():
        if column not in categorical:
            raise InputError(
                f"features.roles.{role}: `{column}` is not among the encoded columns of articles "
                f"({', '.join(f'`{name}`' for name in categorical) or 'there are none'}). "
                "Add it to `features.categorical`, or leave the role empty."
            )


def make_history_lookups(table: ArticleTable, roles: RolesConfig) -> HistoryLookups:
    """Makes the lookups at a cutoff.

    Args:
        table: The article table at the cutoff.
        roles: The categorical columns with a role. The features of an undeclared role do not exist.

    Raises:
        InputError: A role names a column that is not encoded, or one with too many values.
    """
    check_encoded(table.categorical, roles)
    columns = _columns(roles)
    for role, column in columns.items():
        if len(table.vocabulary[column]) > MAX_ROLE_VALUES:
            raise InputError(
                f"features.roles.{role}: `{column}` has {len(table.vocabulary[column]):,} values, expected at most "
                f"{MAX_ROLE_VALUES:,}: a favourite among so many says little. Name a broader column."
            )
    vocabulary = {role: table.vocabulary[column] for role, column in columns.items()}
    shares: tuple[str, ...] = ()
    if roles.section:
        sections = vocabulary["section"]
        num_articles = np.bincount(table.categorical[roles.section], minlength=len(sections) + FIRST_INDEX)
        largest = np.argsort(-num_articles[FIRST_INDEX:], kind="stable")[:MAX_SECTION_SHARES]
        shares = tuple(sections[position] for position in largest)
    return HistoryLookups(
        index={role: table.categorical[column] for role, column in columns.items()},
        vocabulary=vocabulary,
        section_shares=shares,
        women=roles.women if roles.section else (),
        men=roles.men if roles.section else (),
        kids=roles.kids if roles.section else (),
    )


def add_stores(lookups: HistoryLookups, timelines: Timelines, *, min_customers: int) -> HistoryLookups:
    """Adds the index of stores, if the histories name any.

    Args:
        lookups: The lookups of the articles.
        timelines: The visible timelines.
        min_customers: Minimum number of customers of a store; stores with fewer are out of vocabulary.
    """
    size = len(timelines.store_id) + FIRST_INDEX
    if size == FIRST_INDEX:
        return lookups
    pairs = np.unique(timelines.row * size + timelines.store_index)
    num_customers = np.bincount(pairs % size, minlength=size)[FIRST_INDEX:]
    vocabulary = sorted(timelines.store_id[num_customers >= min_customers].tolist())
    if not vocabulary:
        return lookups
    index = np.concatenate([np.zeros(FIRST_INDEX, np.int32), look_up(timelines.store_id, vocabulary)])
    return replace(
        lookups, index={**lookups.index, "store": index}, vocabulary={**lookups.vocabulary, "store": vocabulary}
    )


def _show(values: Sequence[str]) -> str:
    return ", ".join(repr(value) for value in values[:5]) or "none"


def number_names(lookups: HistoryLookups) -> tuple[str, ...]:
    """Returns the names of the columns of `HistoryFeatures.numbers`."""
    names = [
        *("has_history", "has_gap", "has_price", "has_discount"),
        *("recency_days", "frequency", "baskets_per_month", "days_between_baskets", "recent_purchases"),
        *("same_season_last_year", "basket_size", "repeat_share"),
        *("mean_price", "spend", "discount_share", "mean_discount"),
    ]
    if lookups.women or lookups.men:
        names.append("predicted_sex")
    if lookups.kids:
        names.append("predicted_kids")
    names += [f"section_share/{section}" for section in lookups.section_shares]
    if "section" in lookups.index:
        names.append("section_share_of_others")
    return tuple(names)


def categorical_names(lookups: HistoryLookups) -> tuple[str, ...]:
    """Returns the names of the columns of `HistoryFeatures.categorical`."""
    return tuple(_categorical_sizes(lookups))


def categorical_sizes(lookups: HistoryLookups) -> tuple[int, ...]:
    """Returns the number of indices of each column of `HistoryFeatures.categorical`."""
    return tuple(_categorical_sizes(lookups).values())


def _categorical_sizes(lookups: HistoryLookups) -> dict[str, int]:
    sizes = {"preferred_sales_channel": MAX_SALES_CHANNEL_ID + FIRST_INDEX}
    if "colour" in lookups.index:
        sizes["favourite_colour_this_season"] = lookups.size("colour")
    if "garment_group" in lookups.index:
        sizes["favourite_garment_group"] = lookups.size("garment_group")
    if "store" in lookups.index:
        sizes["usual_store"] = lookups.size("store")
    return sizes
