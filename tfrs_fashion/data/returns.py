"""Returns: lines of negative quantity, subtracted from the purchases that they undo."""

import ibis
from ibis import _

from tfrs_fashion.data.row_counts import count_rows
from tfrs_fashion.schema import RowCount


def net_returns(lines: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
    """Subtracts each return from the same customer's earlier purchases of the article, the latest purchase first.

    The units that a customer holds form a stack: a purchase adds units on top, and a return removes units from the top.
    Let `balance` be the height of the stack after each line. The part of a purchase that is never returned is the lowest
    balance from that purchase on, minus the balance before it. At one instant, purchases come before returns.

    This looks ahead: a return changes a purchase that a model may have seen before the return happened.

    Args:
        lines: `customer_id, article_id, t_dat, quantity` and any other columns.

    Returns:
        The purchases that were not returned completely, with the quantity that was kept, and the number of lines that
        each rule touched.
    """
    group = ["customer_id", "article_id"]
    ties = [lines[name] for name in lines.columns if name not in {*group, "t_dat"}]
    order = [lines.t_dat, (lines.quantity < 0).cast("int8"), *ties]
    ranked = lines.mutate(place=ibis.row_number().over(ibis.window(group_by=group, order_by=order)))
    so_far = ibis.window(group_by=group, order_by="place", preceding=None, following=0)
    from_here = ibis.window(group_by=group, order_by="place", preceding=0, following=None)
    ranked = ranked.mutate(total=_.quantity.sum().over(so_far))
    # Units returned that were never bought would take the balance below zero; the stack is then empty.
    ranked = ranked.mutate(balance=_.total - ibis.least(_.total.min().over(so_far), 0))
    ranked = ranked.mutate(
        lowest=_.balance.min().over(from_here),
        before=_.balance.lag(1, 0).over(ibis.window(group_by=group, order_by="place")),
    )
    ranked = ranked.mutate(
        remaining=ibis.greatest(_.lowest - _.before, 0), is_return=_.quantity < 0, taken=_.before - _.balance
    )
    is_return, is_purchase = ranked.is_return, ~ranked.is_return
    rules = {
        "a return, subtracted from the latest earlier purchases": is_return & (ranked.taken > 0),
        "dropped: a return without an earlier purchase": is_return & (ranked.taken == 0),
        "a return of more units than were bought: the rest is dropped": (
            is_return & (ranked.taken > 0) & (ranked.taken < -ranked.quantity)
        ),
        "dropped: returned completely": is_purchase & (ranked.remaining == 0),
        "quantity reduced by returns": is_purchase & (ranked.remaining > 0) & (ranked.remaining < ranked.quantity),
    }
    counts = count_rows(ranked, rules, name="transactions")
    kept = ranked.filter(~_.is_return & (_.remaining > 0)).mutate(quantity=_.remaining.cast("int64"))
    return kept.select(*lines.columns), counts
