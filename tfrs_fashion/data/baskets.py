"""Baskets: what a customer buys under one number on one day."""

import ibis


def basket_of(lines: ibis.Table) -> list[ibis.Value]:
    """Returns what tells the basket of a line from others, to group by: `customer_id`, `basket_id` and `day`.

    Tills use the numbers of their receipts again. What a customer buys under one number on another day is another basket,
    so that no purchase moves to an earlier day; and a cutoff at midnight, as those of windows are, falls inside no basket.

    Args:
        lines: Transactions.
    """
    return [lines.customer_id, lines.basket_id, lines.t_dat.cast("timestamp").truncate("D").name("day")]
