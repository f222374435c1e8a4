"""Returns: lines of negative quantity, taken off the purchases that they undo."""

import ibis
from ibis import _

from tfrs_fashion.schema import RowCount


def net_returns(lines: ibis.Table) -> tuple[ibis.Table, tuple[RowCount, ...]]:
    """Takes each return off the latest earlier purchases of that article by that customer, the latest one first.

    Units in hand are a stack: a purchase lays units on top, a return takes them from there. With `balance` the height
    of the stack after each line, what remains of a purchase is how far the lowest balance from it on stays above the
    balance before it. At one instant purchases come before returns.

    It looks ahead, since a return changes a purchase that a model may have seen before it.

    Args:
        lines: `customer_id, article_id, t_dat, quantity` and any other columns.

    Returns:
        Purchases of which something remains, with that quantity; and how many lines each rule touched.
    """
    columns = lines.columns
    group = ["customer_id", "article_id"]
    ties = [lines[name] for name in columns if name not in {*group, "t_dat"}]
    order = [lines.t_dat, (lines.quantity < 0).cast("int8"), *ties]
    ranked = lines.mutate(place=ibis.row_number().over(ibis.window(group_by=group, order_by=order)))
    so_far = ibis.window(group_by=group, order_by="place", preceding=None, following=0)
    from_here = ibis.window(group_by=group, order_by="place", preceding=0, following=None)
    ranked = ranked.mutate(total=_.quantity.sum().over(so_far))
    # Units returned that were never bought would press the balance below zero: the stack is empty then.
    ranked = ranked.mutate(balance=_.total - ibis.least(_.total.min().over(so_far), 0))
    ranked = ranked.mutate(
        lowest=_.balance.min().over(from_here),
        before=_.balance.lag(1, 0).over(ibis.window(group_by=group, order_by="place")),
    )
    ranked = ranked.mutate(
        remaining=ibis.greatest(_.lowest - _.before, 0),
        is_return=_.quantity < 0,
        taken=_.before - _.balance,
    )
    rules = {
        "a return, taken off the latest earlier purchases": _.is_return & (_.taken > 0),
        "dropped: a return without an earlier purchase": _.is_return & (_.taken == 0),
        "a return of more units than were bought: the rest is dropped": (
            _.is_return & (_.taken > 0) & (_.taken < -_.quantity)
        ),
        "dropped: returned whole": ~_.is_return & (_.remaining == 0),
        "quantity lowered by returns": ~_.is_return & (_.remaining > 0) & (_.remaining < _.quantity),
    }
    found = ranked.agg(**{str(place): _.count(where=rule) for place, rule in enumerate(rules.values())}).execute()
    counts = tuple(
        RowCount("transactions", rule, int(found[str(place)][0]))
        for place, rule in enumerate(rules)
        if found[str(place)][0]
    )
    kept = ranked.filter(~_.is_return & (_.remaining > 0)).mutate(quantity=_.remaining.cast("int64"))
    return kept.select(*columns), counts
