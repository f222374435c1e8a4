"""What history features look up about articles, and the names of these features."""

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

# Channels are few and numbered from 1; those above share the index of unknown values.
MAX_SALES_CHANNEL_ID = 16
MAX_SECTION_SHARES = 32
# A favourite among more values than this says nothing, and its counts take memory: `[batch, values]`.
MAX_ROLE_VALUES = 10_000


@dataclass(frozen=True)
class HistoryLookups:
    """What history features look up about articles; fitted before the cutoff.

    Attributes:
        index: For each of the roles `colour`, `garment_group` and `section` that a column plays, `[num_articles + 2]`
            int32 into its vocabulary: NumPy, or variables inside a `HistoryFeatureLayer`. `store`, if there are stores, is
            `[num_stores + 2]`.
        vocabulary: For each of these its values; index `FIRST_INDEX + i` is value i.
        section_shares: The sections with a share of their own, those of most articles first.
        women: Values of `section` that are for women; empty if none is declared.
        men: Values of `section` that are for men.
        kids: Values of `section` that are for children.
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
    """Lists the sections of the whole catalogue, since at an early cutoff one may not have been sold yet."""
    if not roles.section or not _declared(roles):
        return []
    column = articles[roles.section].cast("string")
    return sorted(articles.filter(column.notnull()).select(section=column).distinct().execute()["section"])


def check_sections(articles: ibis.Table, roles: RolesConfig) -> None:
    """Checks that there are articles in the sections that are declared to be for women, for men and for children.

    One misspelt would otherwise be a feature that is always 0.

    Args:
        articles: The whole catalogue; has the column that `roles.section` names.
        roles: As declared.

    Raises:
        InputError: No article is in any of the sections declared for one of them, or no column is the section.
    """
    sections = _list_sections(articles, roles)
    for part, values in _declared(roles).items():
        if not set(values) & set(sections):
            found = f"`{roles.section}` has {len(sections):,}: {_show(sections)}" if roles.section else "it names none"
            raise InputError(
                f"features.roles.{part}: {_show(values)} should be values of the column `features.roles.section`, but "
                f"no article has one; {found}. Spell them as the articles do, or leave the list empty."
            )


def list_absent_sections(articles: ibis.Table, roles: RolesConfig) -> tuple[RowCount, ...]:
    """Lists declared sections that no article is in, beside others that have some: one to come, or misspelt.

    Args:
        articles: As `check_sections` passed them.
        roles: As declared.
    """
    sections = _list_sections(articles, roles)
    return tuple(
        RowCount("articles", f"with the `{roles.section}` {value!r}, which `features.roles.{part}` names", 0)
        for part, values in _declared(roles).items()
        for value in values
        if value not in sections
    )


def _columns(roles: RolesConfig) -> dict[str, str]:
    """The roles that history features read, and the columns that play them."""
    columns = {"colour": roles.colour, "garment_group": roles.garment_group, "section": roles.section}
    return {role: column for role, column in columns.items() if column}


def check_encoded(categorical: Collection[str], roles: RolesConfig) -> None:
    """Checks that the columns that history features read are encoded.

    Args:
        categorical: The encoded columns of articles.
        roles: As declared.

    Raises:
        InputError: A role names another column.
    """
    for role, column in _columns(roles).items():
        if column not in categorical:
            raise InputError(
                f"features.roles.{role}: `{column}` is none of the encoded columns of articles "
                f"({', '.join(f'`{name}`' for name in categorical) or 'there are none'}). "
                "Add it to `features.categorical`, or leave the role empty."
            )


def make_history_lookups(table: ArticleTable, roles: RolesConfig) -> HistoryLookups:
    """Makes the lookups of a cutoff.

    Args:
        table: Of the cutoff.
        roles: Which of its categorical columns play which part; features of a role that none plays do not exist.

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
        num_articles = np.bincount(table.categorical[roles.section], minlength=len(sections) + FIRST_INDEX)[
            FIRST_INDEX:
        ]
        largest = np.argsort(-num_articles, kind="stable")[:MAX_SECTION_SHARES]
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
    """Adds the stores that histories name, if there are any.

    Args:
        lookups: Of the articles.
        timelines: What is visible.
        min_customers: Stores in which fewer customers bought are out of vocabulary.
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
    """Names the columns of `HistoryFeatures.numbers`."""
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
    """Names the columns of `HistoryFeatures.categorical`."""
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
