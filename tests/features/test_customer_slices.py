import numpy as np
import pytest

from tfrs_fashion.features.customer_slices import make_slices
from tfrs_fashion.features.timelines import Timelines


def make_timelines(events: list[list[tuple[int, int]]], **profile: list[str]) -> Timelines:
    """One list a customer of (time, store_index); customers are 2, 3, …"""
    flat = [event for found in events for event in found]
    num_events, num_customers = len(flat), len(events)
    stores = np.array([store for _time, store in flat], np.int32)
    return Timelines(
        customer_id=np.array([f"c{number}" for number in range(num_customers)], dtype=object),
        row_splits=np.cumsum([0, *map(len, events)]).astype(np.int64),
        article_index=np.full(num_events, 2, np.int32),
        time=np.array([time for time, _store in flat], np.int64),
        price=np.zeros(num_events, np.float32),
        quantity=np.ones(num_events, np.int32),
        discount=np.zeros(num_events, np.float32),
        sales_channel_id=np.zeros(num_events, np.int32),
        store_index=stores,
        store_id=np.array([f"S{number}" for number in range(2, stores.max() + 1)] if len(stores) else [], dtype=object),
        known_from=np.zeros(num_customers, np.int64),
        profile={name: np.array(values, dtype=object) for name, values in profile.items()},
        profile_numbers={},
    )


def slices_of(timelines: Timelines, customers: list[int], **options: np.ndarray) -> dict[str, list[int]]:
    return {name: found.tolist() for name, found in make_slices(timelines, np.array(customers), **options).items()}


def test_activity_counts_baskets_in_thirds_of_those_who_bought() -> None:
    # Baskets: 0, 1 (of two articles), 2, 3, 4, 5, 6; customer 99 is not known yet. Thirds of 1 … 6 end at 8/3 and 13/3.
    events = [[], [(5, 0), (5, 0)], *[[(day, 0) for day in range(count)] for count in range(2, 7)]]
    found = slices_of(make_timelines(events), [2, 3, 4, 5, 6, 7, 8, 99])
    assert found == {
        "activity=no basket": [2, 99],
        "activity=1 to 2 baskets": [3, 4],
        "activity=3 to 4 baskets": [5, 6],
        "activity=5 or more baskets": [7, 8],
    }
    assert next(iter(found)) == "activity=no basket"


def test_thirds_of_activity_come_from_the_evaluated_customers() -> None:
    events = [[(day, 0) for day in range(count)] for count in (1, 1, 9, 9, 9)]
    assert slices_of(make_timelines(events), [2, 3]) == {}
    assert slices_of(make_timelines(events), [2, 3, 4]) == {
        "activity=1 basket": [2, 3],
        "activity=4 or more baskets": [4],
    }


@pytest.mark.parametrize(
    ("age", "band"),
    [(16, "under 25"), (24.9, "under 25"), (25, "25 to 34"), (44, "35 to 44"), (64, "55 to 64"), (65, "65 or over")],
)
def test_age_bands(age: float, band: str) -> None:
    found = slices_of(make_timelines([[], []]), [2, 3], age=np.array([age, np.nan]))
    assert found == {f"age={band}": [2], "age=unknown": [3]}


def test_ages_stand_in_their_order_and_replace_the_band_of_the_profile() -> None:
    timelines = make_timelines([[], [], []], age_band=["a", "b", "a"])
    found = slices_of(timelines, [2, 3, 4], age=np.array([70.0, np.nan, 20.0]))
    assert list(found) == ["age=under 25", "age=65 or over", "age=unknown"]
    unknown = slices_of(timelines, [2, 3, 4], age=np.full(3, np.nan))
    assert unknown == {"age_band=a": [2, 4], "age_band=b": [3]}


def test_the_profile_keeps_its_common_values() -> None:
    status = [*["a"] * 3, *["b"] * 3, *["c"] * 3, *["d"] * 3, *["e"] * 3, "f", "g", ""]
    timelines = make_timelines([[] for _value in status], status=status, hobby=status)
    found = slices_of(timelines, [*range(2, 2 + len(status)), 99])
    assert {name: len(members) for name, members in found.items()} == {
        **{f"status={name}": 3 for name in "abcde"},
        "status=other": 2,
        "status=unknown": 2,
    }


def test_bands_of_ages_are_not_put_together() -> None:
    bands = ["19-24", "25-34", "35-44", "45-54", "55-64", "65+"]
    found = slices_of(make_timelines([[] for _band in bands], age_band=bands), [*range(2, 2 + len(bands))])
    assert found == {f"age_band={band}": [place] for place, band in enumerate(bands, 2)}


def test_the_usual_store_is_that_of_most_purchases_and_the_first_of_equals() -> None:
    events = [[(1, 3), (2, 3), (3, 2)], [(1, 3), (2, 2)], [(1, 0)], [(1, 2)]]
    found = slices_of(make_timelines(events), [2, 3, 4, 5])
    assert {name: members for name, members in found.items() if name.startswith("usual")} == {
        "usual_store=S2": [3, 5],
        "usual_store=S3": [2],
        "usual_store=unknown": [4],
    }
