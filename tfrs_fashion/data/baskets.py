"""Baskets: the articles that a customer buys under one number on one day."""

import ibis


def basket_of(lines: ibis.Table) -> list[ibis.Value]:
    """Returns the columns that identify the basket of a line, to group by: `customer_id`, `basket_id` and `day`.

    Tills reuse receipt numbers, so the same number on another day is another basket. Otherwise a purchase could move to
    an earlier day. Since the cutoffs of windows are at midnight, they never divide a basket.

    Args:
        lines: Transactions.
    """
    return [lines.customer_id, lines.basket_id, lines.t_dat.cast("timestamp").truncate("D").name("day")]
