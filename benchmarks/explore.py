"""How long `explore` takes and how much memory, on tables of H&M's shape: by default its two years at full size.

The tables are invented, in the form in which a run keeps them, unless a run's own are named. The exploration runs in a
process of its own, whose highest memory is what is printed.

Usage: python benchmarks/explore.py [--rows 31800000] [--tables runs/hm/tables]
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import duckdb
import ibis

from tfrs_fashion.data.tables import read_tables
from tfrs_fashion.evaluation.exploration.page import write_exploration

FULL_ROWS, FULL_CUSTOMERS, FULL_ARTICLES = 31_788_324, 1_371_980, 105_542
ROLES = {
    "section_group": "index_group",
    "section": "section",
    "category": "product_type",
    "garment_group": "garment_group",
    "colour": "colour",
}


def write_invented(folder: Path, *, rows: int) -> None:
    """Writes customers, articles and transactions as a run keeps them, popularity and activity skewed as in a shop."""
    share = rows / FULL_ROWS
    customers, articles = max(10, int(share * FULL_CUSTOMERS)), max(10, int(min(1, 4 * share) * FULL_ARTICLES))
    with duckdb.connect(config={"memory_limit": "4GB", "temp_directory": str(folder / "spill")}) as connection:
        connection.execute("SET enable_progress_bar = false; SELECT setseed(0.5)")
        connection.execute(
            f"""COPY (SELECT sha256(i::VARCHAR) AS customer_id, (i + 2)::INT AS customer_index, NULL::TIMESTAMP AS known_from,
            CASE WHEN random() > 0.01 THEN floor(16 + 50 * random() * random() + 8 * random()) END AS age,
            CASE WHEN random() < 0.9 THEN 'ACTIVE' ELSE 'PRE-CREATE' END AS status
            FROM range({customers}) AS t(i)) TO '{folder}/customers.parquet'"""
        )
        connection.execute(
            f"""COPY (SELECT lpad((108775000 + i)::VARCHAR, 10, '0') AS article_id, (i + 2)::INT AS article_index,
            NULL::TIMESTAMP AS known_from, 'A soft jersey, cut ' || i AS description, 'Group ' || i % 5 AS index_group,
            'Section ' || i % 5 || '-' || i % 57 AS section, 'Type ' || i * 7919 % 131 AS product_type,
            'Garments ' || i * 31 % 21 AS garment_group, 'Colour ' || i * 17 % 50 AS colour
            FROM range({articles}) AS t(i)) TO '{folder}/articles.parquet'"""
        )
        # Baskets in the order of customers and days, as `index_tables` sorts; 3.46 lines each on average.
        connection.execute(
            f"""CREATE TEMP TABLE baskets AS SELECT floor({customers} * pow(random(), 1.8))::INT AS customer,
            floor(734 * random())::INT AS day, 1 + least(floor(-2.9 * ln(1 - random())), 40)::INT AS lines
            FROM range({int(rows / 3.4)}) ORDER BY customer, day"""
        )
        connection.execute(
            f"""COPY (SELECT sha256(customer::VARCHAR) AS customer_id, lpad((108775000 + article)::VARCHAR, 10, '0') AS article_id,
            TIMESTAMP '2018-09-20' + to_days(day) AS t_dat, 0.003 + 0.0001 * floor(600 * random() * random()) AS price,
            1::BIGINT AS quantity, NULL::DOUBLE AS discount, CASE WHEN random() < 0.7 THEN 2 ELSE 1 END AS sales_channel_id,
            NULL::VARCHAR AS store_id, sha256(customer::VARCHAR) || '-' || day AS basket_id,
            (customer + 2)::INT AS customer_index, (article + 2)::INT AS article_index
            FROM (SELECT customer, day, CASE WHEN luck < 0.15 THEN hash(customer * 7 + floor(luck * 60)::INT) % {articles}
            ELSE floor({articles} * pow(random(), 3)) END::INT AS article
            FROM (SELECT customer, day, random() AS luck, unnest(range(lines)) FROM baskets)) LIMIT {rows})
            TO '{folder}/transactions.parquet'"""
        )
    (folder / "counts.json").write_text("[]", encoding="utf-8")


def explore(tables: Path, folder: Path, roles: dict[str, str]) -> None:
    start = time.monotonic()
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET enable_progress_bar = false")
    loaded = read_tables(connection, tables)
    write_exploration(folder, tables=loaded, title="benchmark", **roles)
    seconds, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = used.ru_utime + used.ru_stime
    rows, size = loaded.transactions.count().execute(), (folder / "exploration.html").stat().st_size / 2**20
    print(
        f"explore: {rows:,} rows in {seconds:.1f} s ({processor:.0f} s of processor time), "
        f"at most {used.ru_maxrss / 2**20:.1f} GiB; a page of {size:.1f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=FULL_ROWS)
    parser.add_argument("--tables", type=Path, help="a run's own tables/, explored without roles")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables, roles = options.tables, {}
        if tables is None:
            tables, roles = Path(folder), ROLES
            write_invented(tables, rows=options.rows)
        # A new interpreter, which inherits neither memory nor its highest mark.
        process = multiprocessing.get_context("spawn").Process(
            target=explore, args=(tables, Path(folder) / "out", roles)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
