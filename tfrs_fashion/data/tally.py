"""Tallies: the distinct values of raw columns and the number of rows of each, counted in one pass over a file.

Values in files repeat: a customer's id appears in every purchase, and a date in thousands. With a tally, each distinct
value is converted and checked only once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ibis
from ibis import _


@dataclass(frozen=True)
class Tally:
    """The distinct values of several columns, stacked.

    Attributes:
        table: One row per distinct value of a column: the value in a column of its own (those of the other columns are
            null), and the number of `rows`.
        places: Number of each column, by its name in the file.
    """

    table: ibis.Table
    places: Mapping[str, int]

    def values(self, name: str) -> ibis.Value:
        """Returns the values of a column, for conditions that are passed to `count`."""
        return self.table[f"value {self.places[name]}"]

    def count(self, name: str, where: ibis.Value | None = None) -> ibis.Value:
        """Counts the file's rows whose value of a column meets a condition."""
        is_own = self._is_own(name)
        # Not `&`, for which DuckDB would evaluate the condition on the values of all columns.
        condition = is_own if where is None else ibis.ifelse(is_own, where, False)
        return self.table.rows.sum(where=condition).fill_null(0)

    def count_values(self, name: str) -> ibis.Value:
        """Counts the distinct values of a column, including a missing one."""
        return self.table.count(where=self._is_own(name))

    def list_values(self, name: str) -> ibis.Table:
        """Returns a table of a column's distinct values without a missing one."""
        values = self.values(name)
        return self.table.filter(self._is_own(name) & values.notnull()).select(value=values)

    def _is_own(self, name: str) -> ibis.Value:
        return self.table[f"other {self.places[name]}"] == 0


def count_values(connection: ibis.BaseBackend, table: ibis.Table, names: Sequence[str]) -> Tally:
    """Counts the rows of each distinct value of each column.

    Args:
        connection: DuckDB backend of Ibis.
        table: The table, which is read once.
        names: Columns to count.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    query = ibis.to_sql(table.select(**{f"value {place}": _[name] for name, place in places.items()}), dialect="duckdb")
    columns = [f'"value {place}"' for place in places.values()]
    others = [f'GROUPING({column}) AS "other {place}"' for place, column in enumerate(columns)]
    groups = ", ".join(f"({column})" for column in columns)
    name = ibis.util.gen_name("tally")
    connection.raw_sql(
        f"CREATE TEMP TABLE {name} AS SELECT {', '.join(columns + others)}, COUNT(*) AS rows FROM ({query}) "
        f"GROUP BY GROUPING SETS ({groups})"
    )
    return Tally(connection.table(name), places)
