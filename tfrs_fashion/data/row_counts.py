"""Counts of the rows that rules drop or change, all of a table's rules in one pass."""

from collections.abc import Mapping

import ibis

from tfrs_fashion.schema import RowCount


def count_rows(table: ibis.Table, rules: Mapping[str, ibis.Value], *, name: str) -> tuple[RowCount, ...]:
    """Counts the rows that meet each rule's condition.

    Args:
        table: Any Ibis table.
        rules: Condition on a row by the description of the rule.
        name: Name of the table in the counts.

    Returns:
        Counts in the order of the rules, without rules that no row meets.
    """
    if not rules:
        return ()
    conditions = {str(number): table.count(where=condition) for number, condition in enumerate(rules.values())}
    rows = table.agg(**conditions).execute().iloc[0]
    return tuple(RowCount(name, rule, int(rows[str(number)])) for number, rule in enumerate(rules) if rows[str(number)])
