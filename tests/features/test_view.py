from dataclasses import replace

import ibis
import numpy as np
import pytest

from tfrs_fashion.data.split import Split, cutoff_seconds
from tfrs_fashion.features import view as view_module
from tfrs_fashion.features.article_weeks import FEATURES
from tfrs_fashion.features.hashed_words import HashedWords, hash_texts
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View, check_features, make_view
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount, Tables
from tfrs_fashion.settings.base import FeaturesConfig, RolesConfig
from tfrs_fashion.settings.pipeline import PipelineConfig


@pytest.mark.parametrize("name", ["validation", "test", "release"])
def test_everything_ends_at_the_cutoff(
    name: str, tables: Tables, timelines: Timelines, splits: dict[str, Split], config: PipelineConfig
) -> None:
    split = splits[name]
    view = make_view(tables, timelines, split, categorical=config.features.categorical, in_store_days=28)
    latest = view.transactions.t_dat.max().execute()
    assert latest < split.as_of
    assert int(view.transactions.count().execute()) == len(view.timelines.time)
    assert view.timelines.time.max() < cutoff_seconds(split, 0)[0]
    assert view.now.tolist() == [cutoff_seconds(split, 0)[0]] * (view.timelines.num_customers + FIRST_INDEX)
    assert len(view.profiles.categorical) == len(view.profiles.numbers) == len(view.now)
    # Whatever a history holds, the article table knows.
    assert view.timelines.article_index.max() < view.articles.num_articles + FIRST_INDEX


def test_values_of_a_profile_are_those_of_customers_who_bought(
    tables: Tables, timelines: Timelines, splits: dict[str, Split]
) -> None:
    # The last customer has no visible purchase, and alone the band "110s".
    split = splits["test"]
    last = timelines.num_customers - 1
    bands = timelines.profile["age_band"].copy()
    bands[last] = "110s"
    named = replace(timelines, profile={**timelines.profile, "age_band": bands})
    cutoffs = timelines.time < cutoff_seconds(split, 0)[0]
    bought = np.unique(timelines.row[cutoffs])
    view = make_view(tables, named, split, categorical=(), in_store_days=28, history=False)
    expected = sorted({str(value) for value in bands[bought]} - {""})
    assert view.profile_vocabulary["age_band"] == expected
    assert ("110s" in expected) == (last in bought)


def test_rare_values_of_a_profile_are_out_of_vocabulary_and_counted(
    tables: Tables, timelines: Timelines, splits: dict[str, Split]
) -> None:
    split = splits["test"]
    bought = np.unique(timelines.row[timelines.time < cutoff_seconds(split, 0)[0]])
    codes = np.full(timelines.num_customers, "", dtype=object)
    # Three share a code, two another one, four have one each, and the others none; whoever bought nothing has no say.
    codes[bought[:9]] = ["1010", "1010", "1010", "8010", "8010", "a", "b", "c", "d"]
    others = np.setdiff1d(np.arange(timelines.num_customers), bought)
    codes[others] = "8010"
    named = replace(timelines, profile={"postal_code": codes, "same": np.full(len(codes), "x", dtype=object)})
    found = make_view(tables, named, split, categorical=(), min_customers=3, history=False, in_store_days=28)
    assert found.profile_vocabulary == {"postal_code": ["1010"], "same": ["x"]}
    assert found.profiles.categorical[bought[:10] + FIRST_INDEX, 0].tolist() == [2, 2, 2, 1, 1, 1, 1, 1, 1, 0]
    assert found.counts == (RowCount("customers", "`postal_code`: 5 value(s) of too few customers", 6),)
    every = make_view(tables, named, split, categorical=(), min_customers=1, history=False, in_store_days=28)
    assert every.counts == ()
    assert every.profile_vocabulary["postal_code"] == ["1010", "8010", "a", "b", "c", "d"]


def test_words_are_hashed_once_for_all_views_and_cut_to_the_articles_known(
    view: View, tables: Tables, timelines: Timelines, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tables.articles.order_by("article_index").description.execute().fillna("").tolist()
    long = ["", "", "hat " * 5_000, *texts[1:]]
    changed = tables.articles.mutate(
        description=ibis.ifelse(tables.articles.article_index == FIRST_INDEX, long[2], tables.articles.description)
    )
    shared: dict[int, HashedWords] = {}
    found = [
        make_view(
            replace(tables, articles=changed),
            timelines,
            split,
            categorical=(),
            words=shared,
            in_store_days=28,
            history=False,
        )
        for split in splits.values()
    ]
    words = found[0].read_words(64)
    monkeypatch.setattr(view_module, "hash_texts", None)
    for made in found:
        expected = hash_texts(long[: made.articles.num_articles + FIRST_INDEX], num_buckets=64)
        np.testing.assert_array_equal(made.read_words(64).values, expected.values)
        np.testing.assert_array_equal(made.read_words(64).row_splits, expected.row_splits)
    # Of the long text 10,000 characters are read: 2,500 words and the pairs of them.
    assert words.row_splits[:4].tolist() == [0, 0, 0, 4_999]


def test_vectors_are_cut_to_the_articles_known(view: View, tables: Tables, timelines: Timelines) -> None:
    num_articles = int(tables.articles.count().execute())
    vectors = np.random.default_rng(0).normal(size=(num_articles + FIRST_INDEX + 5, 3)).astype(np.float32)
    found = make_view(tables, timelines, view.split, categorical=(), vectors=vectors, history=False, in_store_days=28)
    np.testing.assert_array_equal(found.articles.vectors, vectors[: found.articles.num_articles + FIRST_INDEX])


def test_weekly_features_are_as_many_as_asked_for_or_none(view: View, tables: Tables, timelines: Timelines) -> None:
    weeks = view.read_weeks(3)
    # The time before the oldest instant comes last, and nothing is known of it.
    assert weeks.values.shape == (4, view.articles.num_articles + FIRST_INDEX, len(FEATURES))
    assert np.isnan(weeks.values[3]).all()
    plain = make_view(tables, timelines, view.split, categorical=(), article_weeks=False, in_store_days=28)
    none = plain.read_weeks(3)
    assert none.values.shape == (4, view.articles.num_articles + FIRST_INDEX, 0)
    assert none.week_of(view.now[:1]).tolist() == [0]


def test_features_of_histories_may_be_left_out(view: View, tables: Tables, timelines: Timelines) -> None:
    assert view.lookups is not None
    assert set(view.lookups.index) == {"colour", "garment_group", "section"}
    assert make_view(tables, timelines, view.split, categorical=(), history=False, in_store_days=28).lookups is None


def test_features_that_the_tables_have_are_passed(config: PipelineConfig, tables: Tables) -> None:
    check_features(tables, config.features)
    check_features(tables, FeaturesConfig())


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"profile": ["status", "age_bnd"]},
            r"features\.profile: the customers table has no column\(s\) `age_bnd` \(did you mean `age_band`\?\); found `",
        ),
        (
            {"profile_numbers": ["zzz"]},
            r"features\.profile_numbers: the customers table has no column\(s\) `zzz`; found",
        ),
        (
            {"profile_numbers": ["status"]},
            r"features\.profile_numbers: column\(s\) status of the customers do not hold numbers",
        ),
        ({"categorical": ["COLOUR"]}, r"features\.categorical: .* `COLOUR` \(did you mean `colour`\?\)"),
        ({"numbers": ["listprice"]}, r"features\.numbers: .* `listprice` \(did you mean `list_price`\?\)"),
        ({"numbers": ["colour"]}, r"features\.numbers: column\(s\) colour of the articles do not hold numbers"),
        ({"sets": ["colors"]}, r"features\.sets: .* `colors` \(did you mean `colour`\?\)"),
        ({"roles": {"category": "group"}}, r"features\.roles\.category: .* `group`"),
        ({"roles": {"section_group": "sections"}}, r"features\.roles\.section_group: .* \(did you mean `section`\?\)"),
        ({"roles": {"colour": "colour"}}, r"features\.roles\.colour: `colour` is not among the encoded columns"),
        (
            {"categorical": ["section"], "roles": {"section": "section", "women": ["Ladies' wear"]}},
            r"features\.roles\.women: \"Ladies' wear\" should be values of the column",
        ),
        ({"history": False, "roles": {"kids": ["Kids"]}}, r"features\.roles\.kids: .* it names none"),
    ],
)
def test_features_that_the_tables_lack_raise(tables: Tables, features: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_features(tables, FeaturesConfig.model_validate(features))


def test_without_features_of_histories_a_role_needs_no_encoding(tables: Tables) -> None:
    check_features(tables, FeaturesConfig(history=False, roles=RolesConfig(colour="colour")))


def test_role_of_a_column_that_is_not_encoded_raises(view: View, tables: Tables, timelines: Timelines) -> None:
    with pytest.raises(InputError, match=r"features\.roles\.colour: `colour` is not among the encoded columns"):
        make_view(
            tables,
            timelines,
            view.split,
            categorical=("section",),
            roles=RolesConfig(colour="colour"),
            in_store_days=28,
        )
