"""Slices of customers for an evaluation, by what was known before the cutoff: activity, age, status and usual store."""

import numpy as np

from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.schema import FIRST_INDEX

# The maximum number of values that get a slice of their own, and of age bands of a profile; the lower ends of our age bands.
MAX_VALUES, MAX_AGE_BANDS = 5, 12
AGE_BANDS = (0, 25, 35, 45, 55, 65)
PROFILE_SLICES = ("age_band", "segment", "status")


def _count_baskets(timelines: Timelines) -> np.ndarray:
    """Returns the number of baskets of each customer: `[num_customers]`."""
    return np.bincount(timelines.row[timelines.starts_basket], minlength=timelines.num_customers)


def _find_usual_stores(timelines: Timelines) -> np.ndarray:
    """Returns the index of the store with most of a customer's purchases; of equal ones the lowest, 0 where unknown."""
    size = len(timelines.store_id) + FIRST_INDEX
    is_known = timelines.store_index >= FIRST_INDEX
    pairs, purchases = np.unique(timelines.row[is_known] * size + timelines.store_index[is_known], return_counts=True)
    usual = np.zeros(timelines.num_customers, dtype=np.int64)
    # Assignment keeps the last value per customer: sort by purchases, and among equals put the lowest store last.
    order = np.lexsort((-(pairs % size), purchases))
    usual[pairs[order] // size] = pairs[order] % size
    return usual


def _band_activity(baskets: np.ndarray) -> np.ndarray:
    """Names the activity of each customer, a third of those with baskets or `no basket`: `[num_customers]` str."""
    names = np.full(len(baskets), "no basket", dtype=object)
    bought = baskets[baskets > 0]
    if len(bought) == 0:
        return names
    edges = np.unique([1, *(np.floor(np.quantile(bought, (1 / 3, 2 / 3))).astype(int) + 1)])
    for first, following in zip(edges, [*edges[1:], None], strict=True):
        last = None if following is None else following - 1
        words = f"{first} or more" if last is None else str(first) if first == last else f"{first} to {last}"
        unit = "basket" if words == "1" else "baskets"
        names[(baskets >= first) & (baskets <= (last if last is not None else baskets.max()))] = f"{words} {unit}"
    return names


def _band_age(age: np.ndarray) -> np.ndarray:
    """Returns the name of each customer's age band: `[num_customers]` str."""
    names = np.full(len(age), "unknown", dtype=object)
    for first, following in zip(AGE_BANDS, [*AGE_BANDS[1:], None], strict=True):
        within = age >= first if following is None else (age >= first) & (age < following)
        words = f"under {following}" if first == 0 else f"{first} or over" if following is None else ""
        names[within] = words or f"{first} to {(following or 0) - 1}"
    return names


def _keep_common(values: np.ndarray, *, limit: int = MAX_VALUES) -> np.ndarray:
    """Replaces values that are not among the most frequent by `other`, and empty ones by `unknown`."""
    known, counts = np.unique(values[values != ""].astype(str), return_counts=True)
    common = known[np.lexsort((known, -counts))][:limit]
    named = np.where(np.isin(values.astype(str), common), values, "other")
    return np.where(values == "", "unknown", named)


def _sort_key(name: str) -> tuple[int, int, str]:
    """Returns a group's sort key within its dimension: numbers by size, then words, then `other` and `unknown`."""
    first = name.removeprefix("under ").split()[0]
    if name == "no basket" or name.startswith("under "):
        return 0, 0, name
    if first.isdigit():
        return 1, int(first), name
    return {"other": 3, "unknown": 4}.get(name, 2), 0, name


def make_slices(timelines: Timelines, customers: np.ndarray, *, age: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Groups the evaluated customers by what was known of them before the cutoff.

    Args:
        timelines: The visible timelines.
        customers: `[num_evaluated]` customer_index; a customer beyond the timelines has no history and no profile.
        age: `[num_evaluated]` ages in years, NaN where unknown; None if the data have no ages.

    Returns:
        The customer indices of each slice by `dimension=value`: `activity` (number of baskets, in thirds of the customers with
        a history), `age` (or `age_band`), `segment` and `status` if the profile has them, and `usual_store`. A dimension with
        a single value is left out.
    """
    rows = customers - FIRST_INDEX
    is_known = rows < timelines.num_customers
    rows = np.where(is_known, rows, 0)

    def of_evaluated(values: np.ndarray, unknown: int | str) -> np.ndarray:
        return np.where(is_known, values[rows], unknown) if len(values) else np.full(len(rows), unknown)

    values: dict[str, np.ndarray] = {"activity": _band_activity(of_evaluated(_count_baskets(timelines), 0).astype(int))}
    has_age = age is not None and not np.isnan(age).all()
    if age is not None and has_age:
        values["age"] = _band_age(age)
    for name in PROFILE_SLICES:
        if name in timelines.profile and not (name == "age_band" and has_age):
            # Merging rare bands into `other` would destroy the order of ages, so more of them are kept.
            limit = MAX_AGE_BANDS if name == "age_band" else MAX_VALUES
            values[name] = _keep_common(of_evaluated(timelines.profile[name], ""), limit=limit)
    if len(timelines.store_id):
        store_names = np.concatenate([[""] * FIRST_INDEX, timelines.store_id]).astype(object)
        values["usual_store"] = _keep_common(store_names[of_evaluated(_find_usual_stores(timelines), 0).astype(int)])
    slices: dict[str, np.ndarray] = {}
    for dimension, names in values.items():
        groups = sorted(set(names.tolist()), key=_sort_key)
        if len(groups) > 1:
            slices |= {f"{dimension}={group}": customers[names == group] for group in groups}
    return slices
