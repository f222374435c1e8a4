"""Batch inference: an artifact's answers for many customers, written to Parquet and CSV."""

import contextlib
import csv
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from tfrs_fashion.schema import FIRST_INDEX, RunError

RECOMMENDATION_SCHEMA = pa.schema(
    [
        ("customer_id", pa.string()),
        ("article_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("source", pa.string()),
    ]
)

# Articles a customer in a submission to Kaggle.
SUBMITTED = 12


def load_artifact(folder: Path) -> Callable[..., dict[str, tf.Tensor]]:
    """Loads an artifact.

    Args:
        folder: A version's folder.

    Returns:
        Its signature `by_customer`.

    Raises:
        RunError: It is no SavedModel, is corrupted, or needs ScaNN, which is not installed.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("scann")  # registers ScaNN's custom operation
    try:
        artifact: Any = tf.saved_model.load(str(folder))
        signature: Callable[..., dict[str, tf.Tensor]] = artifact.signatures["by_customer"]
    except Exception as error:  # TensorFlow raises many kinds for a damaged SavedModel
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{folder}: the SavedModel cannot be loaded ({reason[:300]}). Export it again with `export --force` or "
            "`release --force`; if it names ScaNN, install the package scann."
        ) from error
    # The signature alone does not keep the lookup tables alive.
    signature.artifact = artifact  # type: ignore[attr-defined]
    return signature


def recommend_batches(
    artifact: Callable[..., dict[str, tf.Tensor]],
    customer_id: Sequence[str],
    *,
    k: int,
    batch_size: int = 256,
    exclude: dict[str, list[str]] | None = None,
    console: Console | None = None,
    description: str = "recommend",
) -> Iterator[pa.Table]:
    """Asks an artifact for every customer, with a progress bar.

    Args:
        artifact: See `load_artifact`.
        customer_id: Customers, in the order of the output.
        k: Articles a customer.
        batch_size: Customers a call.
        exclude: For each customer, article ids to leave out.
        console: Where the progress bar is shown.
        description: Shown beside it.

    Yields:
        Tables in `RECOMMENDATION_SCHEMA`, ordered by customer and rank.
    """
    starts = range(0, len(customer_id), batch_size)
    console = console or Console()
    quiet = not console.is_terminal
    for start in track(starts, description=description, console=console, transient=True, disable=quiet):
        batch = list(customer_id[start : start + batch_size])
        rows = [exclude.get(customer, []) for customer in batch] if exclude else [[] for _customer in batch]
        width = max(map(len, rows))
        padded = [row + [""] * (width - len(row)) for row in rows]
        answer = artifact(
            customer_id=tf.constant(batch, tf.string),
            exclude=tf.reshape(tf.constant(padded, tf.string), [len(batch), width]),
            k=tf.fill([len(batch)], k),
        )
        article_id = np.char.decode(answer["article_ids"].numpy().astype(bytes).ravel(), "utf-8")
        given = article_id != ""
        # An answer is never wider than the catalogue.
        length = answer["article_ids"].shape[1]
        table = {
            "customer_id": np.repeat(np.array(batch, dtype=object), length)[given],
            "article_id": article_id[given],
            "rank": np.tile(np.arange(1, length + 1, dtype=np.int32), len(batch))[given],
            "score": answer["scores"].numpy().ravel()[given],
            "source": np.char.decode(answer["sources"].numpy().astype(bytes).ravel()[given], "utf-8"),
        }
        yield pa.table([pa.array(values) for values in table.values()], schema=RECOMMENDATION_SCHEMA)


def write_recommendations(batches: Iterator[pa.Table], folder: Path) -> int:
    """Writes `recommendations.parquet` and `recommendations.csv`, a batch at a time.

    Returns:
        Rows written.
    """
    rows = 0
    with (
        pa.parquet.ParquetWriter(folder / "recommendations.parquet", RECOMMENDATION_SCHEMA) as parquet,
        pa.csv.CSVWriter(folder / "recommendations.csv", RECOMMENDATION_SCHEMA) as csv,
    ):
        for batch in batches:
            parquet.write_table(batch)
            csv.write_table(batch)
            rows += batch.num_rows
    return rows


def write_submission(batches: Iterator[pa.Table], folder: Path, *, customer_id: Sequence[str]) -> int:
    """Writes `submission.csv` as Kaggle's "H&M Personalized Fashion Recommendations" reads it, a batch at a time.

    Args:
        batches: See `recommend_batches`; each customer's rows lie in one batch, best first.
        folder: Where to write.
        customer_id: Everybody who was asked for; who got no article has a line all the same.

    Returns:
        Customers who got fewer than `SUBMITTED` articles.
    """
    answered: set[str] = set()
    num_short = 0
    with (folder / "submission.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["customer_id", "prediction"])
        for batch in batches:
            lists = batch.to_pandas().groupby("customer_id", sort=False)["article_id"].agg(list)
            lines.writerows((customer, " ".join(articles)) for customer, articles in lists.items())
            num_short += int((lists.map(len) < SUBMITTED).sum())
            answered.update(lists.index)
        unanswered = [customer for customer in customer_id if customer not in answered]
        lines.writerows((customer, "") for customer in unanswered)
    return num_short + len(unanswered)


def to_candidates(batches: Iterator[pa.Table], *, customer_id: np.ndarray, article_id: np.ndarray) -> pd.DataFrame:
    """Turns answers with ids into Candidates with indices.

    Args:
        batches: See `recommend_batches`.
        customer_id: All customer ids; row i has index `FIRST_INDEX + i`.
        article_id: All article ids; likewise.

    Returns:
        `schema.CANDIDATE_COLUMNS`.
    """
    frame = pa.concat_tables(batches).to_pandas()
    customers, articles = pd.Index(customer_id), pd.Index(article_id)
    return pd.DataFrame(
        {
            "customer_index": (customers.get_indexer(frame["customer_id"]) + FIRST_INDEX).astype(np.int32),
            "article_index": (articles.get_indexer(frame["article_id"]) + FIRST_INDEX).astype(np.int32),
            "rank": frame["rank"].astype(np.int32),
            "score": frame["score"].astype(np.float32),
            "source": frame["source"],
        }
    )
