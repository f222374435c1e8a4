"""Artifacts answer from raw ids, in processes that know nothing of this package."""

import datetime
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import epoch_seconds
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX, InputError, RunError
from tfrs_fashion.serving.batch import load_artifact, recommend_batches
from tfrs_fashion.serving.export import artifact_hash, latest_artifact, list_versions

SERVABLE = ("popularity_7d", "repurchase", "als", "two_tower", "two_tower_scann")
# These have an answer of their own for customers who bought nothing; popularity answers for the others.
NEW_ARRIVALS = ("popularity_siblings", "two_tower_new_arrivals")
FOR_STRANGERS = ("popularity_7d", "two_tower", "two_tower_scann")
EVENT_INPUTS = ("article_ids", "times", "prices", "quantities", "discounts", "sales_channel_ids", "store_ids")


def judged(run: Run, name: str) -> Path:
    """The artifact that the report judges."""
    return run.folder / "saved_models" / name / "1"


@functools.cache
def load_once(folder: Path) -> tf.Module:
    """Answers change nothing in an artifact, so that all tests of the module may ask one."""
    return tf.saved_model.load(str(folder))


def signature(run: Run, name: str, which: str) -> Callable[..., dict[str, tf.Tensor]]:
    found: Callable[..., dict[str, tf.Tensor]] = load_once(judged(run, name)).signatures[which]
    return found


def known_customers(run: Run, number: int = 20) -> list[str]:
    return [str(value) for value in run.view("test").timelines.customer_id[:number]]


def ask(
    by_customer: Callable[..., dict[str, tf.Tensor]], customers: list[str], exclude: list[list[str]], k: int
) -> dict:
    width = max(map(len, exclude), default=0)
    padded = [row + [""] * (width - len(row)) for row in exclude]
    answer = by_customer(
        customer_id=tf.constant(customers),
        exclude=tf.reshape(tf.constant(padded, tf.string), [len(customers), width]),
        k=tf.fill([len(customers)], k),
    )
    return {name: value.numpy() for name, value in answer.items()}


def history_inputs(run: Run, customers: list[str]) -> dict[str, np.ndarray]:
    """The raw history of each customer before the cutoff, padded, and the raw profile."""
    cutoff = run.splits["test"].as_of
    frame = (
        run.tables.transactions.filter(_.customer_id.isin(customers) & (_.t_dat < cutoff))
        .select(
            "customer_id",
            "article_id",
            "price",
            "quantity",
            "discount",
            "sales_channel_id",
            store_id=_.store_id.fill_null(""),
            seconds=epoch_seconds(_.t_dat),
        )
        .order_by(["customer_id", "seconds", "article_id"])
        .execute()
    )
    rows = [frame[frame["customer_id"] == customer] for customer in customers]
    inputs = no_history(run, len(customers), width=max(map(len, rows)))
    inputs["now"][:] = int(cutoff.replace(tzinfo=datetime.UTC).timestamp())
    for number, row in enumerate(rows):
        columns = ("article_id", "seconds", "price", "quantity", "discount", "sales_channel_id", "store_id")
        for name, column in zip(EVENT_INPUTS, columns, strict=True):
            inputs[name][number, : len(row)] = row[column]
    features = run.config.features
    listed = run.tables.customers.execute().set_index("customer_id").loc[customers]
    inputs["profile"] = listed[list(features.profile)].fillna("").to_numpy(dtype=object)
    inputs["profile_numbers"] = listed[list(features.profile_numbers)].to_numpy(dtype=np.float32)
    return inputs


def no_history(run: Run, batch: int, *, width: int = 2) -> dict[str, np.ndarray]:
    """Requests in which everything is empty."""
    features = run.config.features
    return {
        "article_ids": np.full((batch, width), "", dtype=object),
        "times": np.zeros((batch, width), np.int64),
        "prices": np.full((batch, width), np.nan, np.float32),
        "quantities": np.zeros((batch, width), np.int32),
        "discounts": np.full((batch, width), np.nan, np.float32),
        "sales_channel_ids": np.zeros((batch, width), np.int32),
        "store_ids": np.full((batch, width), "", dtype=object),
        "profile": np.full((batch, len(features.profile)), "", dtype=object),
        "profile_numbers": np.full((batch, len(features.profile_numbers)), np.nan, np.float32),
        "now": np.full(batch, run.view("test").now[0]),
    }


def by_history(run: Run, name: str, inputs: dict[str, np.ndarray], *, k: int = 12) -> dict[str, np.ndarray]:
    batch = len(inputs["now"])
    answer = signature(run, name, "by_history")(
        **{key: tf.constant(value, tf.string if value.dtype == object else None) for key, value in inputs.items()},
        exclude=tf.zeros([batch, 0], tf.string),
        k=tf.fill([batch], k),
    )
    return {key: value.numpy() for key, value in answer.items()}


@pytest.mark.parametrize("name", [*SERVABLE, *NEW_ARRIVALS])
def test_outputs_are_named_and_every_input_has_a_batch_dimension(tiny_run: Run, name: str) -> None:
    artifact = load_once(judged(tiny_run, name))
    embeds = {"embed"} if name.startswith("two_tower") else set()
    assert set(artifact.signatures) == {"serving_default", "by_customer", "by_history", *embeds}
    for which, found in artifact.signatures.items():
        told = {"embeddings"} if which == "embed" else {"article_ids", "scores", "sources"}
        assert set(found.structured_outputs) == told
        for spec in found.structured_input_signature[1].values():
            assert spec.shape[0] is None
    default = artifact.signatures["serving_default"](customer_id=tf.constant(known_customers(tiny_run, 3)))
    assert default["article_ids"].shape == (3, tiny_run.config.export.k)


def test_customers_are_embedded_as_they_are_ranked(tiny_run: Run) -> None:
    customers = [*known_customers(tiny_run, 5), "nobody"]
    found = signature(tiny_run, "two_tower", "embed")(customer_id=tf.constant(customers))["embeddings"].numpy()
    towers = load_recommender(tiny_run.folder / "models" / "two_tower")
    article_id = tiny_run.view("test").articles.article_id[towers.in_store.article_index - FIRST_INDEX]
    answer = ask(signature(tiny_run, "two_tower", "by_customer"), customers, [[]] * 6, 12)
    score = found @ towers.in_store.embedding.T
    own = [row for row, source in enumerate(answer["sources"][:, 0]) if source == b"two_tower"]
    assert len(own) >= 5
    for row in own:
        best = np.argsort(-score[row], kind="stable")[:12]
        assert score[row][best] == pytest.approx(answer["scores"][row], abs=1e-5)
        assert article_id[best[0]].encode() == answer["article_ids"][row, 0]


ALONE = ("popularity_7d", "repurchase", "als", "two_tower")


@pytest.fixture(scope="module")
def answered_alone(tiny_run: Run, ask_alone: Callable[..., list[dict[str, Any]]]) -> dict[str, Any]:
    """What each artifact answers in a process that imports TensorFlow alone."""
    customers = [*known_customers(tiny_run, 5), "nobody"]
    return dict(zip(ALONE, ask_alone(customers, [judged(tiny_run, name) for name in ALONE]), strict=True))


@pytest.mark.parametrize("name", ALONE)
def test_a_process_with_tensorflow_alone_gives_the_same_answer(
    tiny_run: Run, name: str, answered_alone: dict[str, Any]
) -> None:
    customers, printed = [*known_customers(tiny_run, 5), "nobody"], answered_alone[name]
    assert printed["foreign"] == []
    here = ask(signature(tiny_run, name, "by_customer"), customers, [[]] * 6, tiny_run.config.export.k)
    assert printed["ids"] == [[value.decode() for value in row] for row in here["article_ids"]]
    np.testing.assert_array_equal(np.float32(printed["scores"]), here["scores"])


def test_scann_answers_in_a_fresh_process_that_imports_it(tiny_run: Run, tmp_path: Path) -> None:
    code = (
        "import scann, sys, tensorflow as tf\n"
        "artifact = tf.saved_model.load(sys.argv[1])\n"
        "print(artifact.signatures['serving_default'](customer_id=tf.constant([sys.argv[2]]))['article_ids'].numpy().tolist())"
    )
    (customer,) = known_customers(tiny_run, 1)
    command = [sys.executable, "-c", code, str(judged(tiny_run, "two_tower_scann")), customer]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    here = ask(signature(tiny_run, "two_tower_scann", "by_customer"), [customer], [[]], 12)["article_ids"].tolist()
    assert done.stdout.splitlines()[-1] == str(here)


def test_saved_model_cli_shows_and_runs_the_exact_artifact(tiny_run: Run, tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "saved_model_cli"
    folder = str(judged(tiny_run, "two_tower"))
    shown = subprocess.run([tool, "show", "--dir", folder, "--all"], capture_output=True, text=True, check=True)
    for word in ("serving_default", "by_customer", "by_history", "article_ids", "scores", "sources", "DT_STRING"):
        assert word in shown.stdout
    (customer,) = known_customers(tiny_run, 1)
    command = [tool, "run", "--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default"]
    done = subprocess.run(
        [*command, "--input_exprs", f'customer_id=["{customer}"]', "--outdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Result for output key article_ids" in done.stdout
    saved = np.load(tmp_path / "article_ids.npy", allow_pickle=True)
    here = ask(signature(tiny_run, "two_tower", "by_customer"), [customer], [[]], 12)
    assert saved.tolist() == here["article_ids"].tolist()


@pytest.mark.parametrize("name", ["repurchase", "popularity_7d"])
def test_a_history_in_the_request_is_answered_as_the_stored_one(tiny_run: Run, name: str) -> None:
    customers = known_customers(tiny_run)
    stored = ask(signature(tiny_run, name, "by_customer"), customers, [[]] * len(customers), 12)
    given = by_history(tiny_run, name, history_inputs(tiny_run, customers))
    np.testing.assert_array_equal(stored["article_ids"], given["article_ids"])
    np.testing.assert_array_equal(stored["sources"], given["sources"])


def num_training_baskets(run: Run, customers: list[str]) -> np.ndarray:
    """How many baskets the towers learned from, of each customer."""
    timelines, settings = run.view("test").timelines, run.config.recommender["two_tower"]
    since = int(run.view("test").now[0]) - settings.target_days * 86_400
    row = {str(customer): number for number, customer in enumerate(timelines.customer_id)}
    times = [
        timelines.time[timelines.row_splits[row[customer]] : timelines.row_splits[row[customer] + 1]]
        for customer in customers
    ]
    return np.array([len(np.unique(found[found >= since])) for found in times])


@pytest.mark.parametrize("name", ["two_tower", "two_tower_new_arrivals"])
def test_customers_without_an_embedding_of_their_own_are_what_their_request_says(tiny_run: Run, name: str) -> None:
    customers = known_customers(tiny_run, 1000)
    has_own = num_training_baskets(tiny_run, customers) >= tiny_run.config.recommender["two_tower"].min_customer_baskets
    assert 5 < has_own.sum() < len(customers) - 5
    stored = ask(signature(tiny_run, name, "by_customer"), customers, [[]] * len(customers), 12)
    given = by_history(tiny_run, name, history_inputs(tiny_run, customers))
    np.testing.assert_array_equal(stored["article_ids"][~has_own], given["article_ids"][~has_own])
    np.testing.assert_allclose(stored["scores"][~has_own], given["scores"][~has_own], atol=1e-5)
    # The others are known by more than that.
    assert np.abs(stored["scores"][has_own] - given["scores"][has_own]).max() > 1e-3


@pytest.mark.parametrize("column", ["profile", "profile_numbers", "quantities", "discounts", "sales_channel_ids"])
def test_each_part_of_a_request_is_read(tiny_run: Run, column: str) -> None:
    customers = known_customers(tiny_run)
    inputs = history_inputs(tiny_run, customers)
    other = {
        "profile": np.full_like(inputs["profile"], ""),
        "profile_numbers": inputs["profile_numbers"] + 30,
        "quantities": inputs["quantities"] * 9,
        "discounts": 0.9 - inputs["discounts"],
        "sales_channel_ids": 3 - inputs["sales_channel_ids"],
    }[column]
    found, changed = (by_history(tiny_run, "two_tower", {**inputs, column: value}) for value in (inputs[column], other))
    assert np.abs(found["scores"] - changed["scores"]).max() > 1e-5


def test_a_customer_never_seen_is_answered_from_the_profile(tiny_run: Run) -> None:
    requests = no_history(tiny_run, 4)
    # Two known values each, then unknown ones of two kinds; the ages are missing.
    requests["profile"] = np.array(
        [["20s", "ACTIVE"], ["60s", "NONE"], ["日本", "no such"], ["x" * 1000, "20s"]], dtype=object
    )
    found = by_history(tiny_run, "two_tower", requests)
    assert (found["sources"] == b"two_tower").all()
    assert (found["article_ids"] != b"").all()
    assert np.abs(found["scores"][0] - found["scores"][1]).max() > 1e-4
    # Unknown values are one value, whatever they are.
    np.testing.assert_array_equal(found["article_ids"][2], found["article_ids"][3])
    np.testing.assert_allclose(found["scores"][2], found["scores"][3], atol=1e-6)


def test_ages_of_any_size_are_answered(tiny_run: Run) -> None:
    requests = no_history(tiny_run, 6)
    requests["profile_numbers"] = np.array([[np.nan], [116.0], [-1.0], [3.4e38], [np.inf], [-np.inf]], np.float32)
    found = by_history(tiny_run, "two_tower", requests)
    assert np.isfinite(found["scores"]).all()
    assert (found["article_ids"] != b"").all()
    # What nobody can be is unknown, as in the tables.
    np.testing.assert_allclose(found["scores"][1:], np.repeat(found["scores"][:1], 5, axis=0), atol=1e-6)
    inside = by_history(
        tiny_run,
        "two_tower",
        no_history(tiny_run, 2) | {"profile_numbers": np.array([[10.0], [110.0]]).astype(np.float32)},
    )
    assert np.abs(inside["scores"] - found["scores"][:1]).max(axis=1).min() > 1e-5


@pytest.mark.parametrize(
    ("column", "bad"),
    [("prices", [0.0, -5.0, np.inf]), ("discounts", [-0.01, 1.01, np.inf])],
)
def test_what_the_rules_of_tables_make_unknown_is_unknown_in_a_request(
    tiny_run: Run, column: str, bad: list[float]
) -> None:
    inputs = history_inputs(tiny_run, known_customers(tiny_run))
    unknown = by_history(tiny_run, "two_tower", inputs | {column: np.full_like(inputs[column], np.nan)})
    for value in bad:
        found = by_history(tiny_run, "two_tower", inputs | {column: np.full_like(inputs[column], value)})
        np.testing.assert_array_equal(found["scores"], unknown["scores"])
    assert np.abs(by_history(tiny_run, "two_tower", inputs)["scores"] - unknown["scores"]).max() > 1e-5


def test_returns_in_a_request_are_left_out_as_in_tables(tiny_run: Run) -> None:
    inputs = history_inputs(tiny_run, known_customers(tiny_run))
    article_ids, quantities = inputs["article_ids"].copy(), inputs["quantities"].copy()
    article_ids[:, 0], quantities[:, 0] = "", 0
    without = by_history(tiny_run, "two_tower", inputs | {"article_ids": article_ids})
    for quantity in (0, -1):
        quantities[:, 0] = quantity
        found = by_history(tiny_run, "two_tower", inputs | {"quantities": quantities})
        np.testing.assert_array_equal(found["scores"], without["scores"])


@pytest.mark.parametrize(("column", "dtype"), [("profile", object), ("profile_numbers", np.float32)])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_profile_of_another_width_is_refused(tiny_run: Run, column: str, dtype: type, change: int) -> None:
    requests = no_history(tiny_run, 2)
    width = requests[column].shape[1] + change
    requests[column] = np.full((2, width), "" if dtype is object else 0, dtype=dtype)
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError), match=r"(?i)shape|incompatible|cast"):
        by_history(tiny_run, "two_tower", requests)


@pytest.mark.parametrize("name", NEW_ARRIVALS)
def test_new_arrivals_are_articles_never_sold_and_nothing_fills_them_up(tiny_run: Run, name: str) -> None:
    articles = tiny_run.view("test").articles
    never_sold = {str(articles.article_id[index - FIRST_INDEX]) for index in articles.never_sold}
    bought = tiny_run.tables.transactions.filter(_.t_dat < tiny_run.splits["test"].as_of).article_id.execute()
    assert never_sold
    assert not never_sold & set(bought)
    customers = [*known_customers(tiny_run), "nobody", ""]
    answers = [
        ask(signature(tiny_run, name, "by_customer"), customers, [[]] * len(customers), 100),
        by_history(tiny_run, name, no_history(tiny_run, 2), k=100),
    ]
    for found in answers:
        for row, scores, sources in zip(found["article_ids"], found["scores"], found["sources"], strict=True):
            shown = [value.decode() for value in row if value]
            # All of them, each once, then nothing.
            assert sorted(shown) == sorted(never_sold)
            assert not row[len(shown) :].any()
            assert (sources[: len(shown)] == name.encode()).all()
            assert not sources[len(shown) :].any()
            assert (np.diff(scores[: len(shown)]) <= 0).all()
            assert (scores[len(shown) :] == 0).all()


@pytest.mark.parametrize("name", NEW_ARRIVALS)
def test_new_arrivals_that_are_excluded_are_left_out(tiny_run: Run, name: str) -> None:
    by_customer = signature(tiny_run, name, "by_customer")
    (customer,) = known_customers(tiny_run, 1)
    whole = [value.decode() for value in ask(by_customer, [customer], [[]], 100)["article_ids"][0] if value]
    found = ask(by_customer, [customer], [whole[:1]], 100)["article_ids"][0]
    assert [value.decode() for value in found if value] == whole[1:]
    assert not ask(by_customer, [customer], [whole], 5)["article_ids"].any()


def test_the_order_of_a_request_padding_unknown_articles_and_the_future_change_nothing(tiny_run: Run) -> None:
    customers = known_customers(tiny_run)
    inputs = history_inputs(tiny_run, customers)
    expected = by_history(tiny_run, "two_tower", inputs)
    assert (expected["sources"] == b"two_tower").all()
    shuffled = np.random.default_rng(3).permutation(inputs["times"].shape[1])
    more = no_history(tiny_run, len(customers), width=3)
    more["article_ids"] = np.tile([["no such article", inputs["article_ids"][0, 0], ""]], (len(customers), 1))
    more["times"] = np.stack([inputs["now"] - 5, inputs["now"], inputs["now"] - 5], axis=1)
    changed = dict(inputs)
    for name in EVENT_INPUTS:
        changed[name] = np.concatenate([more[name], inputs[name][:, shuffled]], axis=1)
    found = by_history(tiny_run, "two_tower", changed)
    np.testing.assert_array_equal(found["article_ids"], expected["article_ids"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)


@pytest.mark.parametrize("name", SERVABLE)
def test_unknown_customers_and_empty_histories_have_one_answer(tiny_run: Run, name: str) -> None:
    found = ask(signature(tiny_run, name, "by_customer"), ["nobody", ""], [[], []], 12)
    np.testing.assert_array_equal(found["article_ids"][0], found["article_ids"][1])
    assert (found["article_ids"] != b"").all()
    given = by_history(tiny_run, name, no_history(tiny_run, 1))
    np.testing.assert_array_equal(given["article_ids"][0], found["article_ids"][0])
    if name in FOR_STRANGERS:
        assert (found["sources"] == name.encode()).all()
    else:
        popular = ask(signature(tiny_run, "popularity_7d", "by_customer"), ["nobody"], [[]], 12)["article_ids"]
        np.testing.assert_array_equal(found["article_ids"], np.repeat(popular, 2, axis=0))
        assert (found["sources"] == b"popularity_7d").all()


@pytest.mark.parametrize("name", SERVABLE)
def test_exclusions_come_before_the_top_k(tiny_run: Run, name: str) -> None:
    customers = known_customers(tiny_run)
    by_customer = signature(tiny_run, name, "by_customer")
    whole = ask(by_customer, customers, [[]] * len(customers), 30)
    exclude = [[value.decode() for value in row[:7]] + ["no such article"] for row in whole["article_ids"]]
    found = ask(by_customer, customers, exclude, 12)
    assert (found["article_ids"] != b"").all()
    for row, left_out in zip(found["article_ids"], exclude, strict=True):
        assert len(set(row)) == 12
        assert not {value.decode() for value in row} & set(left_out)
    if name != "repurchase":  # its list is short, and what fills it up depends on what it holds
        np.testing.assert_array_equal(found["article_ids"], whole["article_ids"][:, 7:19])


@pytest.mark.parametrize("name", SERVABLE)
def test_lists_are_distinct_and_scores_never_rise(tiny_run: Run, name: str) -> None:
    customers = [*known_customers(tiny_run), "nobody"]
    found = ask(signature(tiny_run, name, "by_customer"), customers, [[]] * len(customers), 40)
    assert np.isfinite(found["scores"]).all()
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    for row in found["article_ids"]:
        assert len(set(row)) == len(row)


def test_rows_may_want_different_numbers_and_an_empty_batch_is_answered(tiny_run: Run) -> None:
    by_customer = signature(tiny_run, "two_tower", "by_customer")
    customers = known_customers(tiny_run, 3)
    answer = by_customer(
        customer_id=tf.constant(customers), exclude=tf.zeros([3, 0], tf.string), k=tf.constant([2, 5, 0])
    )
    assert (answer["article_ids"].numpy() != b"").sum(axis=1).tolist() == [2, 5, 0]
    greedy = by_customer(
        customer_id=tf.constant(customers), exclude=tf.zeros([3, 0], tf.string), k=tf.constant([2**31 - 1, -1, 1])
    )
    assert greedy["article_ids"].shape[1] == tiny_run.view("test").articles.num_articles
    empty = by_customer(
        customer_id=tf.zeros([0], tf.string), exclude=tf.zeros([0, 0], tf.string), k=tf.zeros([0], tf.int32)
    )
    assert empty["article_ids"].shape[0] == 0


def test_batches_of_any_size_give_the_same_answers(tiny_run: Run) -> None:
    artifact = load_artifact(judged(tiny_run, "two_tower"))
    customers = known_customers(tiny_run, 13)
    exclude = {customers[2]: ["0108775000"]}
    frames = [
        pd.concat(
            [
                table.to_pandas()
                for table in recommend_batches(artifact, customers, k=5, batch_size=size, exclude=exclude)
            ]
        ).reset_index(drop=True)
        for size in (1, 4, 13, 50)
    ]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], atol=1e-6)
    assert frames[0]["customer_id"].tolist() == list(np.repeat(customers, 5))
    assert frames[0]["rank"].tolist() == list(range(1, 6)) * 13


def test_more_articles_than_there_are_give_all_of_them(tiny_run: Run) -> None:
    artifact = load_artifact(judged(tiny_run, "popularity_7d"))
    customers = known_customers(tiny_run, 3)
    (table,) = recommend_batches(artifact, customers, k=10_000)
    frame = table.to_pandas()
    sold = len(set(tiny_run.view("test").timelines.article_index.tolist()))
    assert frame["customer_id"].tolist() == list(np.repeat(customers, sold))
    assert frame["rank"].tolist() == list(range(1, sold + 1)) * 3


def test_metadata_says_what_an_artifact_was_made_from(tiny_run: Run) -> None:
    metadata = json.loads((judged(tiny_run, "two_tower") / "metadata.json").read_text())
    assert metadata["config"]["recommender"]["two_tower"] == json.loads(
        tiny_run.config.recommender["two_tower"].model_dump_json()
    )
    assert metadata["split"]["as_of"] == tiny_run.splits["test"].as_of.isoformat()
    assert metadata["libraries"]["tensorflow"] == tf.__version__
    assert metadata["pipeline"] == "tiny"
    assert len(metadata["data_fingerprint"]) == 64
    customer_ids = (judged(tiny_run, "two_tower") / "assets" / "customer_ids.txt").read_text().splitlines()
    assert customer_ids[0] == tiny_run.view("test").timelines.customer_id[0]
    known = (
        tiny_run.tables.customers.filter(_.known_from.isnull() | (_.known_from < tiny_run.splits["test"].as_of))
        .count()
        .execute()
    )
    assert len(customer_ids) == known
    assert tiny_run.view("test").timelines.num_customers + FIRST_INDEX == len(tiny_run.view("test").now)


@pytest.mark.parametrize(
    "damage", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
@pytest.mark.parametrize("how", ["remove", "truncate"])
def test_a_corrupted_artifact_is_named(tiny_run: Run, tmp_path: Path, damage: str, how: str) -> None:
    folder = tmp_path / "two_tower" / "1"
    shutil.copytree(judged(tiny_run, "two_tower"), folder)
    file = folder / damage
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"two_tower/1: the SavedModel cannot be loaded.*--force"):
        load_artifact(folder)


def test_the_hash_follows_every_byte(tiny_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    shutil.copytree(judged(tiny_run, "repurchase"), folder)
    before = artifact_hash(folder)
    assert before == artifact_hash(judged(tiny_run, "repurchase"))
    (folder / "assets" / "customer_ids.txt").write_text("someone else\n")
    assert artifact_hash(folder) != before


def test_the_latest_version_is_the_largest_number(tmp_path: Path) -> None:
    for name in ("2", "10", "9", "temporary", ".11.partial"):
        (tmp_path / name).mkdir()
    assert [version for version, _path in list_versions(tmp_path)] == [2, 9, 10]
    assert latest_artifact(tmp_path) == tmp_path / "10"
    with pytest.raises(InputError, match="no artifact here"):
        latest_artifact(tmp_path / "temporary")
