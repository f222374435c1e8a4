from dataclasses import replace
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.history_lookups import (
    MAX_ROLE_VALUES,
    MAX_SALES_CHANNEL_ID,
    MAX_SECTION_SHARES,
    add_stores,
    categorical_names,
    categorical_sizes,
    check_sections,
    list_absent_sections,
    make_history_lookups,
    number_names,
)
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.base import RolesConfig


def test_stores_are_those_of_enough_customers(timelines: Timelines) -> None:
    lookups = make_history_lookups(make_table(), RolesConfig())
    assert add_stores(lookups, timelines, min_customers=1) is lookups
    # Two customers bought in Wien, one of them twice and the other in Graz too; the third in a place untold.
    histories = replace(
        timelines,
        customer_id=np.array(["a", "b", "c"], dtype=object),
        row_splits=np.array([0, 3, 5, 6]),
        store_index=np.array([2, 2, 0, 3, 2, 0], np.int32),
        store_id=np.array(["Wien", "Graz"], dtype=object),
    )
    found = add_stores(lookups, histories, min_customers=1)
    assert found.vocabulary["store"] == ["Graz", "Wien"]
    assert found.index["store"].tolist() == [0, 0, 3, 2]
    assert categorical_names(found) == ("preferred_sales_channel", "usual_store")
    assert categorical_sizes(found)[1] == 4
    common = add_stores(lookups, histories, min_customers=2)
    assert common.vocabulary["store"] == ["Wien"]
    assert common.index["store"].tolist() == [0, 0, 2, 1]
    assert add_stores(lookups, histories, min_customers=3) is lookups


ALWAYS_THERE = (
    "has_history",
    "has_gap",
    "has_price",
    "has_discount",
    "recency_days",
    "frequency",
    "baskets_per_month",
    "days_between_baskets",
    "recent_purchases",
    "same_season_last_year",
    "basket_size",
    "repeat_share",
    "mean_price",
    "spend",
    "discount_share",
    "mean_discount",
)


def make_table(**columns: list[str]) -> ArticleTable:
    """An article table of these categorical columns, one value an article."""
    num_articles = len(next(iter(columns.values()), []))
    size = num_articles + FIRST_INDEX
    vocabulary = {name: fit_vocabulary(values) for name, values in columns.items()}
    categorical = {name: look_up(["", "", *values], vocabulary[name]) for name, values in columns.items()}
    return ArticleTable(
        article_id=np.array([f"a{number}" for number in range(num_articles)], dtype=object),
        categorical=categorical,
        vocabulary=vocabulary,
        numbers={},
        vectors=np.zeros([size, 0], np.float32),
        num_baskets=np.zeros(size, np.int64),
        in_store=np.zeros(0, np.int32),
        never_sold=np.zeros(0, np.int32),
    )


def test_without_roles_there_are_no_features_of_roles() -> None:
    lookups = make_history_lookups(make_table(shade=["red"]), RolesConfig())
    assert lookups.index == {}
    assert number_names(lookups) == ALWAYS_THERE
    assert categorical_names(lookups) == ("preferred_sales_channel",)
    assert categorical_sizes(lookups) == (MAX_SALES_CHANNEL_ID + 2,)


def test_each_role_reads_its_own_column() -> None:
    table = make_table(shade=["red", "blue", ""], kind=["Tops", "Tops", "Shoes"], part=["Men", "", "Ladies"])
    lookups = make_history_lookups(table, RolesConfig(colour="shade", garment_group="kind", section="part"))
    # Sorted: blue 2, red 3; Shoes 2, Tops 3; Ladies 2, Men 3. Indices 0 and 1 are no articles.
    assert {role: index.tolist() for role, index in lookups.index.items()} == {
        "colour": [0, 0, 3, 2, 0],
        "garment_group": [0, 0, 3, 3, 2],
        "section": [0, 0, 3, 0, 2],
    }
    assert {index.dtype for index in lookups.index.values()} == {np.dtype(np.int32)}
    assert categorical_names(lookups) == (
        "preferred_sales_channel",
        "favourite_colour_this_season",
        "favourite_garment_group",
    )
    assert categorical_sizes(lookups) == (MAX_SALES_CHANNEL_ID + 2, 4, 4)
    assert number_names(lookups) == (
        *ALWAYS_THERE,
        "section_share/Ladies",
        "section_share/Men",
        "section_share_of_others",
    )


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ({"women": ("Ladies",)}, ("predicted_sex",)),
        ({"men": ("Men", "Men in a catalogue to come")}, ("predicted_sex",)),
        ({"kids": ("Kids",)}, ("predicted_kids",)),
        ({"women": ("Ladies",), "men": ("Men",), "kids": ("Kids",)}, ("predicted_sex", "predicted_kids")),
    ],
)
def test_guesses_exist_where_sections_are_declared(declared: dict[str, Any], names: tuple[str, ...]) -> None:
    lookups = make_history_lookups(make_table(part=["Ladies", "Men", "Kids"]), RolesConfig(section="part", **declared))
    assert number_names(lookups)[len(ALWAYS_THERE) : -4] == names


def test_small_sections_share_one_column() -> None:
    # 40 sections; the last one in the alphabet has three articles, the one before two, all others one.
    sections = [f"part {number:02d}" for number in range(40)]
    table = make_table(part=[*sections, sections[-1], sections[-1], sections[-2]])
    lookups = make_history_lookups(table, RolesConfig(section="part"))
    shown = (sections[-1], sections[-2], *sections[: MAX_SECTION_SHARES - 2])
    assert lookups.section_shares == shown
    expected = (*(f"section_share/{section}" for section in shown), "section_share_of_others")
    assert number_names(lookups)[len(ALWAYS_THERE) :] == expected


def test_a_section_may_be_called_others() -> None:
    lookups = make_history_lookups(make_table(part=["of_others", "other"]), RolesConfig(section="part"))
    assert len(set(number_names(lookups))) == len(ALWAYS_THERE) + 3


def test_a_column_without_values_has_no_shares() -> None:
    lookups = make_history_lookups(make_table(part=["", ""]), RolesConfig(section="part", colour="part"))
    assert number_names(lookups) == (*ALWAYS_THERE, "section_share_of_others")
    assert categorical_sizes(lookups)[-1] == FIRST_INDEX


def test_a_role_of_a_column_that_is_not_encoded() -> None:
    with pytest.raises(InputError) as caught:
        make_history_lookups(make_table(shade=["red"], kind=["Tops"]), RolesConfig(colour="color"))
    assert str(caught.value) == (
        "features.roles.colour: `color` is not among the encoded columns of articles (`shade`, `kind`). "
        "Add it to `features.categorical`, or leave the role empty."
    )
    with pytest.raises(InputError, match=r"\(there are none\)"):
        make_history_lookups(make_table(), RolesConfig(section="part"))


def test_a_role_of_too_many_values() -> None:
    values = [str(number) for number in range(MAX_ROLE_VALUES + 1)]
    make_history_lookups(make_table(shade=values[1:]), RolesConfig(colour="shade"))
    with pytest.raises(
        InputError, match=r"features\.roles\.colour: `shade` has 10,001 values, expected at most 10,000"
    ):
        make_history_lookups(make_table(shade=values), RolesConfig(colour="shade"))


def test_sections_without_a_column_are_no_guess() -> None:
    lookups = make_history_lookups(make_table(part=["Men"]), RolesConfig(men=("Men",), kids=("Kids",)))
    assert number_names(lookups) == ALWAYS_THERE


CATALOGUE = ibis.memtable(pd.DataFrame({"part": ["Men", None, "Ladies", "Men"], "number": [1, 2, 1, 1]}))


@pytest.mark.parametrize("part", ["women", "men", "kids"])
def test_declared_sections_that_do_not_exist(part: str) -> None:
    declared: dict[str, Any] = {part: ("Ladieswear",)}
    with pytest.raises(InputError) as caught:
        check_sections(CATALOGUE, RolesConfig(section="part", **declared))
    assert str(caught.value) == (
        f"features.roles.{part}: 'Ladieswear' should be values of the column `features.roles.section`, but no article "
        "has one of them; `part` has 2: 'Ladies', 'Men'. Spell them as the articles do, or leave the list empty."
    )
    with pytest.raises(InputError, match=r"but no article has one of them; it names none\. Spell"):
        check_sections(CATALOGUE, RolesConfig(**declared))


def test_declared_sections_that_exist() -> None:
    for roles in (RolesConfig(), RolesConfig(section="number", kids=("2",))):
        check_sections(CATALOGUE, roles)
        assert list_absent_sections(CATALOGUE, roles) == ()


def test_a_declared_section_that_no_article_has_is_named_beside_those_that_some_have() -> None:
    roles = RolesConfig(section="part", men=("Men", "Mne", "Boys"), women=("Ladies",))
    check_sections(CATALOGUE, roles)
    found = list_absent_sections(CATALOGUE, roles)
    assert [(count.table, count.rule, count.rows) for count in found] == [
        ("articles", f"with the `part` {name!r}, which `features.roles.men` names", 0) for name in ("Mne", "Boys")
    ]
