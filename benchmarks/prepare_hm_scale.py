"""Prepares H&M's three files at growing sizes: CSV → tables → weekly article tables → timelines, and pandas doing the same.

Each measurement is a process of its own; memory is the highest sum of what it and its children hold. Beside the seconds
on the clock stand those of the processor, since a busy machine stretches the former. pandas checks, indexes and sorts
the same, writes the same files, and one `tf.train.Example` a customer; of the weekly features it computes a few.

Usage: python benchmarks/prepare_hm_scale.py [--folder runs/hm_scale] [--rows 1e6 3e6 1e7 31788324] [--pandas-rows 3e6]
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

MAX_ROWS, MAX_CUSTOMERS, MAX_ARTICLES = 31_788_324, 1_371_980, 105_542
AS_OF, NUM_WEEKS = datetime.datetime(2020, 9, 23), 16
PROFILE, PROFILE_NUMBERS = ("age_band", "status", "FN", "Active", "fashion_news_frequency", "postal_code"), ("age",)
Stages = dict[str, dict[str, float]]


def timed(stages: Stages, name: str, work: Callable[[], Any]) -> Any:
    start, before = time.monotonic(), time.process_time()
    result = work()
    stages[name] = {"seconds": time.monotonic() - start, "processor": time.process_time() - before}
    print(f"  {name}: {stages[name]}", file=sys.stderr, flush=True)
    return result


def prepare(raw: Path, out: Path) -> Stages:
    """This package."""
    from tfrs_fashion.data.sources import load_source
    from tfrs_fashion.data.tables import index_tables, open_scratch, read_tables, write_tables
    from tfrs_fashion.data_sections import DataConfig
    from tfrs_fashion.features.article_weeks import make_article_weeks
    from tfrs_fashion.schema import check_tables

    stages: Stages = {}
    config = DataConfig(source="hm", path=str(raw))
    with open_scratch(out) as scratch:
        tables = timed(stages, "load", lambda: load_source(scratch, config, seed=1))
        timed(stages, "check", lambda: check_tables(tables))
        indexed = timed(stages, "index", lambda: index_tables(tables))
        timed(stages, "write", lambda: write_tables(indexed, out))
    with open_scratch(out) as scratch:
        tables = read_tables(scratch, out)
        weeks = make_article_weeks(
            tables.articles,
            tables.transactions,
            tables.customers,
            as_of=AS_OF,
            num_weeks=NUM_WEEKS,
            category="product_type_name",
        )
        timed(stages, "weeks", lambda: weeks.to_parquet(out / "article_weeks.parquet"))

        def write() -> None:
            from tfrs_fashion.features.timelines import write_timelines

            (out / "timelines").mkdir()
            write_timelines(tables, out / "timelines", profile=PROFILE, profile_numbers=PROFILE_NUMBERS)

        timed(stages, "timelines", write)
    return stages


def read_back(raw: Path, out: Path) -> Stages:
    """What a run reads first."""
    from tfrs_fashion.features.timelines import read_timelines

    stages: Stages = {}
    found = timed(stages, "read_timelines", lambda: read_timelines(out / "timelines"))
    print(f"  {found.num_customers:,} customers, {len(found.time):,} events", file=sys.stderr)
    return stages


def prepare_pandas(raw: Path, out: Path) -> Stages:
    """The same with pandas, ids as categories, which is its fastest."""
    import numpy as np
    import pandas as pd

    stages: Stages = {}
    folder = out / "pandas"
    folder.mkdir()

    def load() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        types = {"customer_id": "category", "article_id": "category", "price": "float64", "sales_channel_id": "int64"}
        lines = pd.read_csv(raw / "transactions_train.csv", dtype=types, parse_dates=["t_dat"], date_format="%Y-%m-%d")
        lines = lines.groupby(list(lines.columns), observed=True, sort=False).size().rename("quantity").reset_index()
        articles = pd.read_csv(raw / "articles.csv", dtype={"article_id": str})
        articles["description"] = articles["prod_name"] + " " + articles["detail_desc"].fillna("")
        customers = pd.read_csv(raw / "customers.csv").fillna({"FN": -1, "Active": -1})
        edges = [-np.inf, 16, 20, 25, 30, 35, 40, 50, 60, np.inf]
        customers["age_band"] = pd.cut(customers["age"], edges, right=False).astype(str)
        return customers, articles, lines

    customers, articles, lines = timed(stages, "load", load)

    def check() -> None:
        for frame, key in ((customers, "customer_id"), (articles, "article_id")):
            assert frame[key].notna().all()
            assert frame[key].is_unique
            assert not frame[key].str.contains(r"[\x00-\x1f\x7f]").any()
        assert lines[["customer_id", "article_id", "t_dat"]].notna().all(axis=None)
        assert (lines["price"] >= 0).all()
        assert (lines["quantity"] >= 1).all()
        assert lines["t_dat"].max() < pd.Timestamp.now()

    timed(stages, "check", check)

    def index() -> pd.DataFrame:
        nonlocal lines
        for frame, key, number in (
            (customers, "customer_id", "customer_index"),
            (articles, "article_id", "article_index"),
        ):
            frame.sort_values(key, ignore_index=True, inplace=True)
            frame[number] = np.arange(2, len(frame) + 2, dtype=np.int32)
            of_category = pd.Series(frame[number].to_numpy(), index=frame[key]).reindex(lines[key].cat.categories)
            lines[number] = of_category.to_numpy()[lines[key].cat.codes]
        lines["basket_id"] = lines["t_dat"].dt.strftime("%Y-%m-%d").astype("category")
        order = ["customer_index", "t_dat", "basket_id", "article_index", "price", "quantity", "sales_channel_id"]
        return lines.sort_values(order, ignore_index=True)

    lines = timed(stages, "index", index)

    def write() -> None:
        for name, frame in (("customers", customers), ("articles", articles), ("transactions", lines)):
            frame.to_parquet(folder / f"{name}.parquet")

    timed(stages, "write", write)

    def weeks() -> None:
        week = np.minimum((pd.Timestamp(AS_OF) - lines["t_dat"]).dt.days.to_numpy() // 7, NUM_WEEKS + 12)
        keys = pd.DataFrame({"article_index": lines["article_index"].to_numpy(), "week": week})
        sums = (
            keys.assign(price=lines["price"].to_numpy(), online=(lines["sales_channel_id"] == 2).to_numpy(), lines=1)
            .groupby(["article_index", "week"])
            .sum()
        )
        baskets = lines[["article_index", "customer_index", "t_dat"]].assign(week=week).drop_duplicates()
        baskets = baskets.sort_values(["article_index", "customer_index", "t_dat"])
        baskets["age"] = customers["age"].to_numpy()[baskets["customer_index"].to_numpy() - 2]
        baskets["first"] = ~baskets.duplicated(["article_index", "customer_index"])
        baskets["season"] = baskets["t_dat"].dt.month % 12 // 3
        found = baskets.groupby(["article_index", "week"]).agg(
            sales=("first", "size"),
            buyers=("first", "sum"),
            age=("age", "mean"),
            sold=("t_dat", "max"),
            new=("t_dat", "min"),
        )
        seasons = (
            baskets.groupby(["article_index", "week", "season"]).size().unstack(fill_value=0).add_prefix("season_")
        )
        grid = pd.MultiIndex.from_product(
            [articles["article_index"], range(NUM_WEEKS + 13)], names=["article_index", "week"]
        )
        found = found.join(sums).join(seasons).reindex(grid)
        sales = found["sales"].fillna(0).to_numpy().reshape(len(articles), -1)
        before = np.cumsum(sales[:, ::-1], axis=1)[:, ::-1]
        padded = np.concatenate([before, np.zeros((len(articles), 13))], axis=1)
        for span in (1, 4, 13):
            found[f"sales_{span}w"] = (before - padded[:, span : span + sales.shape[1]]).ravel()
        found.reset_index().to_parquet(folder / "article_weeks.parquet")

    timed(stages, "weeks", weeks)

    def timelines() -> None:
        import tensorflow as tf

        splits = np.searchsorted(lines["customer_index"].to_numpy(), np.arange(2, len(customers) + 3))
        time_ = lines["t_dat"].astype("datetime64[s]").astype("int64").to_numpy()
        integers = {name: lines[name].to_numpy() for name in ("article_index", "quantity", "sales_channel_id")}
        integers["time"] = time_
        price = lines["price"].to_numpy(np.float32)
        discount = np.full(len(lines), np.nan, np.float32)
        names = {"age_band": "age_band", "status": "club_member_status", **{name: name for name in PROFILE[2:]}}
        profile = {name: customers[raw].astype(str).tolist() for name, raw in names.items()}
        ids, age = customers["customer_id"].tolist(), customers["age"].tolist()
        with tf.io.TFRecordWriter(str(folder / "timelines.tfrecord")) as writer:
            for row, (first, last) in enumerate(zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True)):
                example = tf.train.Example()
                feature = example.features.feature
                feature["customer_id"].bytes_list.value.append(ids[row].encode())
                feature["customer_index"].int64_list.value.append(row + 2)
                for name, values in profile.items():
                    feature[f"profile/{name}"].bytes_list.value.append(values[row].encode())
                feature["profile_numbers/age"].float_list.value.append(age[row])
                for name, numbers in integers.items():
                    feature[f"events/{name}"].int64_list.value.extend(numbers[first:last].tolist())
                feature["events/price"].float_list.value.extend(price[first:last].tolist())
                feature["events/discount"].float_list.value.extend(discount[first:last].tolist())
                writer.write(example.SerializeToString(deterministic=True))

    timed(stages, "timelines", timelines)
    return stages


WORKS = {"prepare": prepare, "read_back": read_back, "pandas": prepare_pandas}


def measure(work: str, raw: Path, out: Path, *, max_memory: float) -> dict[str, Any]:
    """Runs one work in a process of its own; returns its stages, and its memory in GB."""
    command = [sys.executable, __file__, "--work", work, "--raw", str(raw), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                held = sum(one.memory_info().rss for one in (watched, *watched.children(recursive=True))) / 1e9
            except psutil.Error:
                break
            peak = max(peak, held)
            if held > max_memory:
                over.set()
                process.kill()
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate()[0]
    watcher.join()
    if process.returncode:
        why = f"more than {max_memory:.0f} GB" if over.is_set() else f"exit code {process.returncode}"
        return {"stages": {}, "memory": peak, "failed": why}
    return {"stages": json.loads(output.splitlines()[-1]), "memory": peak}


def show(name: str, rows: int, found: dict[str, Any]) -> None:
    parts = [f"{stage} {one['seconds']:.1f} ({one['processor']:.1f})" for stage, one in found["stages"].items()]
    total = sum(one["seconds"] for one in found["stages"].values())
    processor = sum(one["processor"] for one in found["stages"].values())
    ended = f"stopped: {found['failed']}" if "failed" in found else f"total {total:.1f} s ({processor:.1f})"
    print(f"{name:9s} {rows:>11,} rows  {'  '.join(parts)}  {ended}  {found['memory']:.1f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/hm_scale"), help="raw files are kept here")
    parser.add_argument("--rows", type=float, nargs="*", default=[1e6, 3e6, 1e7, MAX_ROWS])
    parser.add_argument("--pandas-rows", type=float, nargs="*", default=[3e6])
    parser.add_argument("--max-memory", type=float, default=12.0, help="GB at which a process is stopped")
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(WORKS[options.work](options.raw, options.out)))
        return
    from tfrs_fashion.data.hm_scale import write_hm_scale

    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; seconds on the clock (of the processor)")
    totals: dict[tuple[str, int], tuple[float, float]] = {}
    for rows in sorted({int(value) for value in (*options.rows, *options.pandas_rows)}):
        raw, out = options.folder / f"raw-{rows}", options.folder / f"out-{rows}"
        if not raw.exists():
            share = rows / MAX_ROWS
            sizes = {"num_customers": round(MAX_CUSTOMERS * share), "num_articles": round(MAX_ARTICLES * share**0.5)}
            start = time.monotonic()
            write_hm_scale(raw, num_transactions=rows, seed=1, **{name: max(1, size) for name, size in sizes.items()})
            print(f"hm_scale  {rows:>11,} rows  written in {time.monotonic() - start:.1f} s", flush=True)
        works = ["prepare", "read_back"] if rows in map(int, options.rows) else []
        works += ["pandas"] if rows in map(int, options.pandas_rows) else []
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for work in works:
            found = measure(work, raw, out, max_memory=options.max_memory)
            show(work, rows, found)
            if "failed" not in found:
                stages = found["stages"].values()
                totals[work, rows] = sum(one["seconds"] for one in stages), sum(one["processor"] for one in stages)
        shutil.rmtree(out, ignore_errors=True)
    for (work, rows), (seconds, processor) in totals.items():
        if work == "pandas" and ("prepare", rows) in totals:
            ours = totals["prepare", rows]
            print(f"{rows:,} rows: {seconds / ours[0]:.1f} times pandas ({processor / ours[1]:.1f} of the processor)")


if __name__ == "__main__":
    main()
