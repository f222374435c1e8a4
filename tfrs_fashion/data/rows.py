"""Rows of articles and customers: read from a file of their own, or derived from the transactions that mention them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import ibis
from ibis import _

from tfrs_fashion.data.conversions import Kind, MappedColumn, convert
from tfrs_fashion.data.raw import Dialect, materialize, read_raw
from tfrs_fashion.data.row_counts import count_rows
from tfrs_fashion.schema import OLDEST, YOUNGEST, RowCount, check_unique
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig

# A categorical feature with more values than this, and a new one on most rows, identifies rows rather than describes them.
_MANY_VALUES, _MANY_SHARE = 1000, 0.5

# Canonical columns that are read as they are, beside the id.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("image_path", "product_code", "status"), "category"),
    **dict.fromkeys(("list_price", "margin", "age"), "number"),
    **dict.fromkeys(("available_from", "available_to", "known_from"), "timestamp"),
}


@dataclass(frozen=True)
class Rows:
    """How the rows of articles or customers are made from raw columns.

    Attributes:
        table: `articles` or `customers`.
        config: Its section of the pipeline file.
        raw_key: Name of the id's column in the file.
        digits: See `TransactionsConfig.article_id_digits`.
    """

    table: Literal["articles", "customers"]
    config: ArticlesConfig | CustomersConfig
    raw_key: str
    digits: int = 0

    @property
    def key(self) -> str:
        """`article_id` or `customer_id`."""
        return f"{self.table.removesuffix('s')}_id"

    def _inputs(self) -> dict[str, tuple[Sequence[str], Kind]]:
        """Raw columns, and their kind, of each column made from others. They are read as `_input(name, 0)` and so on."""
        inputs: dict[str, tuple[Sequence[str], Kind]] = {
            **{f"derived.{name}": (columns, "category") for name, columns in self.config.derived.items()},
            **{f"bands.{name}": (tuple(band), "number") for name, band in self.config.bands.items()},
        }
        if isinstance(self.config, ArticlesConfig):
            inputs["description"] = (self.config.description, "text")
        return inputs

    def _input_names(self) -> set[str]:
        return {_input(name, place) for name, (raw, _kind) in self._inputs().items() for place in range(len(raw))}

    def columns(self) -> list[MappedColumn]:
        """Returns the columns to read, except the id."""
        config, section = self.config, f"data.{self.table}"
        columns = [
            MappedColumn(name, raw, f"{section}.{name}", kind, date_format=config.date_format)
            for name, kind in _KINDS.items()
            if (raw := getattr(config, name, ""))
        ]
        for name, raw in config.features.items():
            columns.append(MappedColumn(name, raw, f"{section}.features.{name}", "category"))
        for name, raw in config.numbers.items():
            columns.append(MappedColumn(name, raw, f"{section}.numbers.{name}", "number"))
        for name, (inputs, kind) in self._inputs().items():
            columns += [
                MappedColumn(_input(name, place), raw, f"{section}.{name}", kind) for place, raw in enumerate(inputs)
            ]
        return columns

    def raw_names(self) -> dict[str, str]:
        """Returns the file's name of each column that is read as it is."""
        inputs = self._input_names()
        return {self.key: self.raw_key} | {
            column.name: column.raw for column in self.columns() if column.name not in inputs
        }

    def _finish(self, table: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Makes the columns that are made from others, and examines each feature.

        Args:
            table: The columns of `columns`, the id, and `known_from`.

        Returns:
            Articles or customers in canonical columns, and counts of rows that were changed or of suspicious features.
        """
        config = self.config
        values: dict[str, ibis.Value] = {}
        raw_age = config.age if isinstance(config, CustomersConfig) else ""
        if raw_age:
            values["age"] = ibis.ifelse(table.age.between(YOUNGEST, OLDEST), table.age, ibis.null("float64"))
        if isinstance(config, ArticlesConfig):
            values["description"] = _join(table, "description", len(config.description), " ")
        values |= {name: _join(table, f"derived.{name}", len(raw), "-") for name, raw in config.derived.items()}
        for name, band in config.bands.items():
            ((raw, edges),) = band.items()
            number = values["age"] if raw == raw_age else table[_input(f"bands.{name}", 0)]
            values[name] = _band(number, edges)
        rules = {}
        for name, default in config.fill.items():
            value = values[name] if name in values else table[name]
            rules[f"`{name}` missing: {default!r} instead"] = value.isnull()
            values[name] = value.fill_null(default)
        if raw_age:
            is_outside = table.age.notnull() & values["age"].isnull()
            rules[f"`{raw_age}` outside [{YOUNGEST}, {OLDEST}]: age unknown"] = is_outside
        counts = count_rows(table, rules, name=self.table)
        table = table.mutate(**values).drop(*self._input_names())
        return table, (*counts, *self._find_uninformative(table))

    def _find_uninformative(self, table: ibis.Table) -> Iterable[RowCount]:
        """Reports columns with a single value, and features with a value of its own on most rows. All are kept."""
        config = self.config
        named = [name for name in _KINDS if getattr(config, name, "")]
        if isinstance(config, ArticlesConfig) and config.description:
            named.append("description")
        names = (*named, *config.feature_names, *config.numbers)
        if not names:
            return
        aggregates = {f"values {place}": table[name].nunique() for place, name in enumerate(names)}
        aggregates |= {f"known {place}": table[name].count() for place, name in enumerate(names)}
        row = table.agg(rows=table.count(), **aggregates).execute().iloc[0]
        rows = int(row["rows"])
        for place, name in enumerate(names):
            num_values, known = int(row[f"values {place}"]), int(row[f"known {place}"])
            if not known:
                yield RowCount(self.table, f"`{name}` is missing on every row: it says nothing", rows)
            elif num_values == 1 and known == rows:
                yield RowCount(self.table, f"`{name}` has one value on every row: it says nothing", rows)
            elif num_values > max(_MANY_VALUES, _MANY_SHARE * rows) and name in config.feature_names:
                yield RowCount(self.table, f"`{name}` has {num_values:,} values: too many to teach much", known)

    def read(
        self, connection: ibis.BaseBackend, folder: Path, *, dialect: Dialect, first_sold: ibis.Table
    ) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Reads the rows from a file of their own.

        Args:
            connection: DuckDB backend of Ibis.
            folder: Folder of the file.
            dialect: The way in which the file is written.
            first_sold: Each id with `start`, the instant of its first transaction.

        Raises:
            InputError: The file cannot be read, or an id has several rows that differ.
        """
        raw = read_raw(connection, folder / self.config.file, dialect=dialect, key=f"data.{self.table}.file")
        setting = f"data.{self.table}.{self.key}"
        key = MappedColumn(self.key, self.raw_key, setting, "id", required=True, digits=self.digits)
        table, counts = convert(raw, [key, *self.columns()], table=self.table)
        table = materialize(connection, table)
        num_rows = int(table.count().execute())
        if int(table[self.key].nunique().execute()) < num_rows:
            table = materialize(connection, table.distinct())
            if repeated := num_rows - int(table.count().execute()):
                counts += (RowCount(self.table, "dropped: a row that repeats another in every column read", repeated),)
            check_unique(table, self.key, where=f"{raw.where} (`{self.key}` from `{self.raw_key}`)")
        if self.config.known_from:
            first = _input("known_from", 0)
            joined = table.left_join(first_sold.rename({first: "start"}), self.key).drop(f"{self.key}_right")
            is_late = joined.known_from > joined[first]
            rule = "`known_from` later than the first transaction: moved to it"
            counts += count_rows(joined, {rule: is_late}, name=self.table)
            table = joined.mutate(known_from=ibis.ifelse(is_late, joined[first], joined.known_from)).drop(first)
        else:
            table = table.mutate(known_from=ibis.null("timestamp(6)"))
        table, more_counts = self._finish(materialize(connection, table))
        return table, (*counts, *more_counts)

    def derive(self, connection: ibis.BaseBackend, lines: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Derives each row from the first line that mentions its id; later lines would leak the future.

        Args:
            connection: DuckDB backend of Ibis.
            lines: Converted transactions with `start`, the first instant of their basket, and the columns of `columns`,
                each named `<table>.<name>`.

        Returns:
            One row per id, known from the instant of that line. Among lines of one instant, the first in the order of
            all columns counts.
        """
        columns = {column.name: f"{self.table}.{column.name}" for column in self.columns()}
        ties = [name for name in ("t_dat", *columns.values(), *lines.columns) if name not in {"start", self.key}]
        order = [lines.start, *(lines[name] for name in dict.fromkeys(ties))]
        place = ibis.row_number().over(ibis.window(group_by=self.key, order_by=order))
        first = lines.mutate(place=place).filter(_.place == 0)
        values = {name: _[prefixed] for name, prefixed in columns.items()}
        table = first.select(**{self.key: _[self.key], "known_from": _.start}, **values)
        table, counts = self._finish(materialize(connection, table))
        rule = "derived from the transactions, each from its first line and known from then on"
        return table, (RowCount(self.table, rule, int(table.count().execute())), *counts)


def _input(name: str, place: int) -> str:
    return f"input {place} of {name}"


def _join(table: ibis.Table, name: str, num_inputs: int, separator: str) -> ibis.Value:
    """Joins the input columns that are not null; null if all are."""

    def append(left: ibis.Value, right: ibis.Value) -> ibis.Value:
        return ibis.ifelse(left.isnull(), right, ibis.ifelse(right.isnull(), left, left + separator + right))

    if not num_inputs:
        return ibis.null("string")
    return reduce(append, (table[_input(name, place)] for place in range(num_inputs)))


def _band(number: ibis.Value, edges: Sequence[float]) -> ibis.Value:
    """Names the band of a number: `<16`, `16-19`, …, `60+`; bands between fractions are `0.5 to 1.5`."""
    is_whole = all(float(edge).is_integer() for edge in edges)
    texts = [str(int(edge)) if is_whole else str(edge) for edge in edges]
    cases = [(number < edges[0], f"<{texts[0]}")]
    for place, high in enumerate(edges[1:]):
        name = f"{texts[place]} to {texts[place + 1]}"
        if is_whole:
            name = texts[place] if high == edges[place] + 1 else f"{texts[place]}-{int(high) - 1}"
        cases.append((number < high, name))
    return ibis.cases(*cases, (number.notnull(), f"{texts[-1]}+"), else_=None)
