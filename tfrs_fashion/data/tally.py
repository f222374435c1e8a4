"""Tallies: the distinct values of raw columns and how many rows hold each, counted in one pass over a file.

Files repeat themselves: a customer's id stands in every purchase, a date in thousands. What is to be said of values is
said of each once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ibis
from ibis import _


@dataclass(frozen=True)
class Tally:
    """The values of several columns, one below the other.

    Attributes:
        table: For each column its values in a column of its own, null in the rows of the others, and `rows`.
        places: Number of each column, by its name in the file.
    """

    table: ibis.Table
    places: Mapping[str, int]

    def values(self, name: str) -> ibis.Value:
        """Returns the values of a column, to be used with `count`."""
        return self.table[f"value {self.places[name]}"]

    def count(self, name: str, where: ibis.Value | None = None) -> ibis.Value:
        """Counts rows of the file by a condition on one column's values."""
        own = self._own(name)
        # Not `&`, of which DuckDB would compute the condition for the values of all columns.
        return self.table.rows.sum(where=own if where is None else ibis.ifelse(own, where, False)).fill_null(0)

    def count_values(self, name: str) -> ibis.Value:
        """Counts the values, a missing one among them."""
        return self.table.count(where=self._own(name))

    def list_values(self, name: str) -> ibis.Table:
        """Returns a table of the values that are not missing."""
        values = self.values(name)
        return self.table.filter(self._own(name) & values.notnull()).select(value=values)

    def _own(self, name: str) -> ibis.Value:
        return self.table[f"other {self.places[name]}"] == 0


def count_values(connection: ibis.BaseBackend, table: ibis.Table, names: Sequence[str]) -> Tally:
    """Counts the rows of each value of each column.

    Args:
        connection: A DuckDB backend of Ibis.
        table: Read once.
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
