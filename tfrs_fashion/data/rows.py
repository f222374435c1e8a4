"""Rows of articles and customers: read from a file of their own, or derived from the transactions that name them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import ibis
from ibis import _

from tfrs_fashion.data.conversions import Kind, Wanted, convert
from tfrs_fashion.data.raw import Dialect, keep, read_raw
from tfrs_fashion.schema import OLDEST, YOUNGEST, RowCount, check_unique
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig

# A categorical feature of more values than this, and on most rows another one, tells rows apart and teaches little.
_MANY_VALUES, _MANY_SHARE = 1000, 0.5

_TEXTS = ("image_path", "product_code", "status")
_NUMBERS = ("list_price", "margin", "age")
_INSTANTS = ("available_from", "available_to", "known_from")


@dataclass(frozen=True)
class Rows:
    """How the rows of one table are made.

    Attributes:
        table: `articles` or `customers`.
        config: Its section of the pipeline file.
        raw_key: The id's column in the file.
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

    def _parts(self) -> dict[str, tuple[Sequence[str], Kind]]:
        """Columns that are made of others; those are read as `_part(name, 0)`, `_part(name, 1)` and so on."""
        config = self.config
        parts: dict[str, tuple[Sequence[str], Kind]] = {
            **{f"derived.{name}": (columns, "text") for name, columns in config.derived.items()},
            **{f"bands.{name}": (tuple(band), "number") for name, band in config.bands.items()},
        }
        if isinstance(config, ArticlesConfig):
            parts["description"] = (config.description, "words")
        return parts

    def wanted(self) -> list[Wanted]:
        """Returns the columns to read, all but the id."""
        config, section = self.config, f"data.{self.table}"
        found = []
        for name in (*_TEXTS, *_NUMBERS, *_INSTANTS):
            if raw := getattr(config, name, ""):
                kind: Kind = "instant" if name in _INSTANTS else "number" if name in _NUMBERS else "text"
                found.append(Wanted(name, raw, f"{section}.{name}", kind, date_format=config.date_format))
        found += [Wanted(name, raw, f"{section}.features.{name}", "text") for name, raw in config.features.items()]
        found += [Wanted(name, raw, f"{section}.numbers.{name}", "number") for name, raw in config.numbers.items()]
        for name, (columns, kind) in self._parts().items():
            found += [Wanted(_part(name, place), raw, f"{section}.{name}", kind) for place, raw in enumerate(columns)]
        return found

    def _part_names(self) -> set[str]:
        return {_part(name, place) for name, (columns, _kind) in self._parts().items() for place in range(len(columns))}

    def raw_names(self) -> dict[str, str]:
        """Returns the file's name of each canonical column that is read as it is."""
        parts = self._part_names()
        return {self.key: self.raw_key} | {
            column.name: column.raw for column in self.wanted() if column.name not in parts
        }

    def finish(self, table: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Makes what is made of other columns, and looks at each feature.

        Args:
            table: The columns of `wanted`, the id, and `known_from`.

        Returns:
            Articles or customers in canonical columns, and what was changed or is odd about a feature.
        """
        config = self.config
        made: dict[str, ibis.Value] = {}
        parts, raw_age, age = self._part_names(), "", None
        if isinstance(config, CustomersConfig) and config.age:
            raw_age, told = config.age, _part("age", 0)
            age = ibis.ifelse(table.age.between(YOUNGEST, OLDEST), table.age, ibis.null("float64"))
            made |= {"age": age, told: table.age}
            parts.add(told)
        if isinstance(config, ArticlesConfig):
            made["description"] = _joined(table, "description", len(config.description), " ")
        made |= {name: _joined(table, f"derived.{name}", len(parts), "-") for name, parts in config.derived.items()}
        for name, band in config.bands.items():
            ((raw, edges),) = band.items()
            is_age = age is not None and raw == raw_age
            made[name] = _band(age if is_age else table[_part(f"bands.{name}", 0)], edges)
        table = table.mutate(**made)
        rules = {f"`{name}` missing: {value!r} instead": table[name].isnull() for name, value in config.fill.items()}
        if age is not None:
            outside = table[told].notnull() & table.age.isnull()
            rules[f"`{raw_age}` outside [{YOUNGEST}, {OLDEST}]: age unknown"] = outside
        counts = _count(table, rules, self.table)
        table = table.mutate(**{name: table[name].fill_null(value) for name, value in config.fill.items()})
        table = table.drop(*parts)
        return table, (*counts, *self._odd_features(table))

    def _odd_features(self, table: ibis.Table) -> Iterable[RowCount]:
        """Names columns that say nothing, and features that say something else on every row; they are kept all the same."""
        config = self.config
        named = [name for name in (*_TEXTS, *_NUMBERS, *_INSTANTS) if getattr(config, name, "")]
        if isinstance(config, ArticlesConfig) and config.description:
            named.append("description")
        names = (*named, *config.feature_names, *config.numbers)
        if not names:
            return
        figures = {f"values {place}": table[name].nunique() for place, name in enumerate(names)}
        figures |= {f"known {place}": table[name].count() for place, name in enumerate(names)}
        found = table.agg(rows=table.count(), **figures).execute().iloc[0]
        rows = int(found["rows"])
        for place, name in enumerate(names):
            values, known = int(found[f"values {place}"]), int(found[f"known {place}"])
            is_many = values > _MANY_VALUES and values > _MANY_SHARE * rows
            if not known:
                yield RowCount(self.table, f"`{name}` is missing on every row: it says nothing", rows)
            elif values == 1 and known == rows:
                yield RowCount(self.table, f"`{name}` has one value on every row: it says nothing", rows)
            elif is_many and name in self.config.feature_names:
                yield RowCount(self.table, f"`{name}` has {values:,} values: too many to teach much", known)

    def read(
        self, connection: ibis.BaseBackend, folder: Path, *, dialect: Dialect, first_sold: ibis.Table
    ) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Reads the rows from their own file.

        Args:
            connection: A DuckDB backend of Ibis.
            folder: Of `config.file`.
            dialect: How the file is written.
            first_sold: The id and `start`, the instant of its first transaction.

        Raises:
            InputError: The file cannot be read, or an id has rows that differ.
        """
        raw = read_raw(connection, folder / self.config.file, dialect=dialect, key=f"data.{self.table}.file")
        key = Wanted(self.key, self.raw_key, f"data.{self.table}.{self.key}", "id", required=True, digits=self.digits)
        table, counts = convert(raw, [key, *self.wanted()], table=self.table)
        table = keep(connection, table)
        num_rows = int(table.count().execute())
        if int(table[self.key].nunique().execute()) < num_rows:
            table = keep(connection, table.distinct())
            if repeated := num_rows - int(table.count().execute()):
                counts += (RowCount(self.table, "dropped: a row that repeats another in every column read", repeated),)
            check_unique(table, self.key, where=f"{raw.where} (`{self.key}` from `{self.raw_key}`)")
        if self.config.known_from:
            first = _part("known_from", 0)
            joined = table.left_join(first_sold.rename({first: "start"}), self.key).drop(f"{self.key}_right")
            late = joined.known_from > joined[first]
            counts += _count(joined, {"`known_from` later than the first transaction: moved to it": late}, self.table)
            table = joined.mutate(known_from=ibis.ifelse(late, joined[first], joined.known_from)).drop(first)
        else:
            table = table.mutate(known_from=ibis.null("timestamp(6)"))
        table, more = self.finish(keep(connection, table))
        return table, (*counts, *more)

    def derive(self, connection: ibis.BaseBackend, lines: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
        """Makes a row of the first line that names an id: a later line would be tomorrow's row.

        Args:
            connection: A DuckDB backend of Ibis.
            lines: Converted transactions with `start`, the first instant of their basket, and the columns of `wanted`,
                each named `<table>.<name>`.

        Returns:
            One row an id, known from the instant of that line. Of lines at one instant the first by all columns counts.
        """
        columns = {column.name: f"{self.table}.{column.name}" for column in self.wanted()}
        ties = [name for name in ("t_dat", *columns.values(), *lines.columns) if name not in {"start", self.key}]
        order = [lines.start, *(lines[name] for name in dict.fromkeys(ties))]
        place = ibis.row_number().over(ibis.window(group_by=self.key, order_by=order))
        first = lines.mutate(place=place).filter(_.place == 0)
        table = first.select(
            **{self.key: _[self.key], "known_from": _.start}, **{name: _[made] for name, made in columns.items()}
        )
        table, counts = self.finish(keep(connection, table))
        rule = "derived from the transactions, each from its first line and known from then on"
        return table, (RowCount(self.table, rule, int(table.count().execute())), *counts)


def _part(name: str, place: int) -> str:
    return f"part {place} of {name}"


def _joined(table: ibis.Table, name: str, num_parts: int, sign: str) -> ibis.Value:
    """Joins the parts that are known; null where none is."""

    def append(left: ibis.Value, right: ibis.Value) -> ibis.Value:
        return ibis.ifelse(left.isnull(), right, ibis.ifelse(right.isnull(), left, left + sign + right))

    if not num_parts:
        return ibis.null("string")
    return reduce(append, (table[_part(name, place)] for place in range(num_parts)))


def _band(number: ibis.Value, edges: Sequence[float]) -> ibis.Value:
    """Names the band of a number: `<16`, `16-19`, …, `60+`; bands between fractions are `0.5 to 1.5`."""
    is_whole = all(float(edge).is_integer() for edge in edges)
    shown = [str(int(edge)) if is_whole else str(edge) for edge in edges]
    cases = [(number < edges[0], f"<{shown[0]}")]
    for place, high in enumerate(edges[1:]):
        name = f"{shown[place]} to {shown[place + 1]}"
        if is_whole:
            name = shown[place] if high == edges[place] + 1 else f"{shown[place]}-{int(high) - 1}"
        cases.append((number < high, name))
    return ibis.cases(*cases, (number.notnull(), f"{shown[-1]}+"), else_=None)


def _count(table: ibis.Table, rules: dict[str, ibis.Value], name: str) -> tuple[RowCount, ...]:
    """Counts the rows of each rule in one pass, and leaves out those that touched none."""
    if not rules:
        return ()
    found = table.agg(**{str(place): table.count(where=bad) for place, bad in enumerate(rules.values())}).execute()
    rows = [int(found[str(place)][0]) for place in range(len(rules))]
    return tuple(RowCount(name, rule, count) for rule, count in zip(rules, rows, strict=True) if count)
