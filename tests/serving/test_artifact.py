"""Artifacts answer from raw ids, in processes that know nothing of this package."""

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ibis import _

from tfrs_fashion.run import Run
from tfrs_fashion.schema import FIRST_INDEX, InputError, RunError
from tfrs_fashion.serving.batch import load_artifact, recommend_batches
from tfrs_fashion.serving.export import artifact_hash, latest_artifact, list_versions

SERVABLE = ("popularity_7d", "repurchase", "als", "two_tower", "two_tower_scann")


def judged(run: Run, name: str) -> Path:
    """The artifact that the report judges."""
    return run.folder / "saved_models" / name / "1"


def signature(run: Run, name: str, which: str) -> Callable[..., dict[str, tf.Tensor]]:
    artifact = tf.saved_model.load(str(judged(run, name)))
    found = artifact.signatures[which]
    found.artifact = artifact
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


def history_inputs(run: Run, customers: list[str], *, length: int | None = None) -> dict[str, np.ndarray]:
    """The raw history of each customer before the cutoff, padded."""
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
            seconds=_.t_dat.epoch_seconds(),
        )
        .order_by(["customer_id", "seconds", "article_id"])
        .execute()
    )
    rows = [frame[frame["customer_id"] == customer] for customer in customers]
    width = length or max(map(len, rows))
    inputs = {
        "article_ids": np.full((len(customers), width), "", dtype=object),
        "times": np.zeros((len(customers), width), np.int64),
        "prices": np.full((len(customers), width), np.nan, np.float32),
        "quantities": np.zeros((len(customers), width), np.int32),
        "discounts": np.full((len(customers), width), np.nan, np.float32),
        "sales_channel_ids": np.zeros((len(customers), width), np.int32),
        "now": np.full(len(customers), int(cutoff.replace(tzinfo=datetime.UTC).timestamp())),
    }
    for number, row in enumerate(rows):
        inputs["article_ids"][number, : len(row)] = row["article_id"]
        inputs["times"][number, : len(row)] = row["seconds"]
        for key, column in (("prices", "price"), ("quantities", "quantity"), ("discounts", "discount")):
            inputs[key][number, : len(row)] = row[column]
        inputs["sales_channel_ids"][number, : len(row)] = row["sales_channel_id"].fillna(0)
    return inputs


def by_history(run: Run, name: str, inputs: dict[str, np.ndarray], *, k: int = 12) -> dict[str, np.ndarray]:
    batch = len(inputs["now"])
    answer = signature(run, name, "by_history")(
        **{key: tf.constant(value) for key, value in inputs.items()},
        exclude=tf.zeros([batch, 0], tf.string),
        k=tf.fill([batch], k),
    )
    return {key: value.numpy() for key, value in answer.items()}


@pytest.mark.parametrize("name", SERVABLE)
def test_outputs_are_named_and_every_input_has_a_batch_dimension(tiny_run: Run, name: str) -> None:
    artifact = tf.saved_model.load(str(judged(tiny_run, name)))
    assert set(artifact.signatures) == {"serving_default", "by_customer", "by_history"}
    for found in artifact.signatures.values():
        assert set(found.structured_outputs) == {"article_ids", "scores", "sources"}
        for spec in found.structured_input_signature[1].values():
            assert spec.shape[0] is None
    default = artifact.signatures["serving_default"](customer_id=tf.constant(known_customers(tiny_run, 3)))
    assert default["article_ids"].shape == (3, tiny_run.config.export.k)


@pytest.mark.parametrize("name", ["popularity_7d", "repurchase", "als", "two_tower"])
def test_a_process_with_tensorflow_alone_gives_the_same_answer(tiny_run: Run, name: str, tmp_path: Path) -> None:
    customers = [*known_customers(tiny_run, 5), "nobody"]
    script = tmp_path / "ask.py"
    script.write_text(
        "import json, sys\n"
        "import tensorflow as tf\n"
        "artifact = tf.saved_model.load(sys.argv[1])\n"
        "answer = artifact.signatures['serving_default'](customer_id=tf.constant(json.loads(sys.argv[2])))\n"
        "foreign = {'tfrs_fashion', 'tensorflow_recommenders', 'scann'} & set(sys.modules)\n"
        "ids = [[value.decode() for value in row] for row in answer['article_ids'].numpy()]\n"
        "print(json.dumps({'foreign': sorted(foreign), 'ids': ids, 'scores': answer['scores'].numpy().tolist()}))\n"
    )
    command = [sys.executable, str(script), str(judged(tiny_run, name)), json.dumps(customers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    printed = json.loads(done.stdout.splitlines()[-1])
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


def test_the_order_of_a_request_padding_unknown_articles_and_the_future_change_nothing(tiny_run: Run) -> None:
    customers = known_customers(tiny_run)
    inputs = history_inputs(tiny_run, customers)
    expected = by_history(tiny_run, "two_tower", inputs)
    assert (expected["sources"] == b"two_tower").all()
    shuffled = np.random.default_rng(3).permutation(inputs["times"].shape[1])
    changed = {name: value if name == "now" else value[:, shuffled] for name, value in inputs.items()}
    more = {
        "article_ids": np.tile([["no such article", inputs["article_ids"][0, 0], ""]], (len(customers), 1)),
        "times": np.stack([inputs["now"] - 5, inputs["now"], inputs["now"] - 5], axis=1),
        "prices": np.full((len(customers), 3), np.nan, np.float32),
        "quantities": np.zeros((len(customers), 3), np.int32),
        "discounts": np.full((len(customers), 3), np.nan, np.float32),
        "sales_channel_ids": np.zeros((len(customers), 3), np.int32),
    }
    changed |= {name: np.concatenate([value, changed[name]], axis=1) for name, value in more.items()}
    found = by_history(tiny_run, "two_tower", changed)
    np.testing.assert_array_equal(found["article_ids"], expected["article_ids"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)


@pytest.mark.parametrize("name", SERVABLE)
def test_unknown_customers_and_empty_histories_are_answered_by_popularity(tiny_run: Run, name: str) -> None:
    popular = ask(signature(tiny_run, "popularity_7d", "by_customer"), ["nobody"], [[]], 12)["article_ids"]
    found = ask(signature(tiny_run, name, "by_customer"), ["nobody", ""], [[], []], 12)
    np.testing.assert_array_equal(found["article_ids"], np.repeat(popular, 2, axis=0))
    assert (found["sources"] == b"popularity_7d").all()
    empty = {
        "article_ids": np.array([["", ""]], dtype=object),
        "times": np.zeros((1, 2), np.int64),
        "prices": np.zeros((1, 2), np.float32),
        "quantities": np.zeros((1, 2), np.int32),
        "discounts": np.zeros((1, 2), np.float32),
        "sales_channel_ids": np.zeros((1, 2), np.int32),
        "now": np.array([10**9]),
    }
    np.testing.assert_array_equal(by_history(tiny_run, name, empty)["article_ids"], popular)


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


def test_metadata_says_what_an_artifact_was_made_from(tiny_run: Run) -> None:
    metadata = json.loads((judged(tiny_run, "two_tower") / "metadata.json").read_text())
    assert metadata["config"]["two_tower"] == json.loads(tiny_run.config.two_tower.model_dump_json())
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
