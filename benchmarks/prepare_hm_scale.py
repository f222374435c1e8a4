"""Prepares H&M's three files at growing sizes: CSV → tables → weekly article tables → timelines, and pandas doing the same.

Each measurement is a process of its own; memory is the highest sum of what it and its children hold. Beside the seconds
on the clock stand those of the processor, since a busy machine stretches the former. `prepare_hm_pandas.py` is the peer:
the same work in pandas. That both wrote the same is asserted on a hundredth of the rows, the records to the byte.

Usage: python benchmarks/prepare_hm_scale.py [--folder runs/hm_scale] [--rows 1e6 3e6 1e7 31788324] [--pandas-rows 1e6 3e6]
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
    from tfrs_fashion.features.article_weeks import make_article_weeks
    from tfrs_fashion.schema import check_tables
    from tfrs_fashion.settings.data import DataConfig

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
    """The same with pandas."""
    import prepare_hm_pandas as peer

    stages: Stages = {}
    folder, counts = out / "pandas", {}
    (folder / "timelines").mkdir(parents=True)
    customers, articles, lines = timed(stages, "load", lambda: peer.load(raw, counts))
    timed(stages, "check", lambda: peer.check(customers, articles, lines))
    customers, articles, lines = timed(stages, "index", lambda: peer.index(customers, articles, lines, counts))
    tables = {"customers": customers, "articles": articles, "transactions": lines}
    timed(stages, "write", lambda: peer.write_tables(folder, counts, **tables))

    def weeks() -> None:
        table = peer.make_weeks(customers, articles, lines, as_of=AS_OF, num_weeks=NUM_WEEKS)
        table.to_parquet(folder / "article_weeks.parquet")

    timed(stages, "weeks", weeks)

    def write() -> None:
        peer.write_timelines(customers, lines, folder / "timelines", profile=PROFILE, numbers=PROFILE_NUMBERS)

    timed(stages, "timelines", write)
    return stages


def compare(raw: Path, out: Path) -> Stages:
    """Asserts that both wrote the same: all rows of a hundredth of the ids in tables and weeks, and records to the byte."""
    import numpy as np
    import pandas as pd
    import pyarrow.parquet as pq
    import tensorflow as tf

    compared = {}
    for name, keys in (
        ("customers", ["customer_index"]),
        ("articles", ["article_index"]),
        ("transactions", ["customer_index", "t_dat", "article_index", "price", "sales_channel_id"]),
        ("article_weeks", ["article_index", "week"]),
    ):
        ours, theirs = (pq.read_table(folder / f"{name}.parquet") for folder in (out, out / "pandas"))
        assert set(ours.column_names) == set(theirs.column_names), name
        assert len(ours) == len(theirs), name
        ours, theirs = (
            table.filter(np.asarray(table[keys[0]]) % 100 == 7).to_pandas().sort_values(keys, ignore_index=True)
            for table in (ours, theirs)
        )
        for column in ours:
            left, right = ours[column], theirs[column]
            if pd.api.types.is_numeric_dtype(left):
                left, right = left.to_numpy(float, na_value=np.nan), right.to_numpy(float, na_value=np.nan)
                np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6, err_msg=f"{name}.{column}")
            else:
                left, right = (values.astype(object).where(values.notna(), None) for values in (left, right))
                assert left.tolist() == right.tolist(), f"{name}.{column}"
        compared[name] = len(ours)
    records = [
        tf.data.TFRecordDataset(sorted(map(str, (folder / "timelines").glob("*.tfrecord-*")))).shard(100, 7)
        for folder in (out, out / "pandas")
    ]
    ours, theirs = (list(found.as_numpy_iterator()) for found in records)
    assert ours == theirs, "timelines"
    print(f"  equal: {compared | {'timelines': len(ours)}} rows", file=sys.stderr)
    return {}


WORKS = {"prepare": prepare, "read_back": read_back, "pandas": prepare_pandas, "compare": compare}


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
    parser.add_argument("--pandas-rows", type=float, nargs="*", default=[1e6, 3e6])
    parser.add_argument("--max-memory", type=float, default=12.0, help="GB at which a process is stopped")
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(WORKS[options.work](options.raw, options.out)))
        return
    from tfrs_fashion.data.generated.hm_scale import write_hm_scale

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
        works += ["compare"] if {"prepare", "pandas"} <= set(works) else []
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for work in works:
            found = measure(work, raw, out, max_memory=options.max_memory)
            if work == "compare":
                print(f"compare   {rows:>11,} rows  {found.get('failed', 'equal')}", flush=True)
                continue
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
