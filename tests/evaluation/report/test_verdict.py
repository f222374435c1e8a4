import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.verdict import decide
from tfrs_fashion.schema import InputError

# One customer in two is hit, in the same way by all: only what is added differs.
BASE = np.tile([0.0, 1.0], 200)


def values(**added: np.ndarray | float) -> dict[str, pd.Series]:
    return {name: pd.Series(BASE + extra) for name, extra in added.items()}


def decided(*names: str, **added: np.ndarray | float) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    found = decide(values(**added), baselines=names, num_samples=200)
    return found.recommender, found.alike, found.headline, found.reasons


def test_a_clear_winner() -> None:
    best, alike, headline, reasons = decided("repurchase", als=0.0, blend=0.2, repurchase=0.1)
    assert (best, alike, headline) == ("blend", (), "Ship blend.")
    assert reasons[0].startswith("blend has the highest map@12, 0.7000 (")
    assert "each of the 2 others lies below it by more than chance" in reasons[0]
    assert "the same 400 customers" in reasons[0]
    # 0.7 against 0.6 is a sixth more.
    assert reasons[1].startswith("blend is 16.7% (")
    assert reasons[1].endswith(") above repurchase on map@12 (the runner-up and a baseline).")
    assert reasons[-1] == (
        "It was chosen from 3 by the customers that measure it, and by one window: a small lead may not last."
    )
    assert len(reasons) == 3


def test_what_cannot_be_told_apart_is_named() -> None:
    # A difference of 0.001 on average, of ±0.5 for each customer: far below its standard error of 0.025.
    noise = np.tile([0.5, 0.5, -0.5, -0.5], 100)
    best, alike, headline, reasons = decided("popular", blend=0.001 + noise, gru=0.0, popular=-0.2)
    assert (best, alike, headline) == ("blend", ("gru",), "Ship blend or gru.")
    assert "400 customers do not tell it from gru" in reasons[0]
    assert reasons[1].startswith("blend and gru cannot be told apart on map@12: ")
    assert reasons[1].endswith(" (the runner-up).")
    assert reasons[2].endswith(" above popular on map@12 (a baseline).")


def test_three_alike_are_joined_in_words() -> None:
    _best, alike, headline, reasons = decided(a=0.0, b=0.0, c=0.0)
    assert alike == ("b", "c")
    assert headline == "Ship a, b or c."
    assert "do not tell it from b or c" in reasons[0]


def test_a_baseline_that_wins_is_called_one() -> None:
    best, _alike, _headline, reasons = decided("repurchase", repurchase=0.1, gru=0.0)
    assert best == "repurchase"
    assert "repurchase is itself a baseline: nothing that costs more has a higher map@12 here." in reasons


def test_one_alone_has_nothing_to_be_compared_with() -> None:
    best, alike, headline, reasons = decided(gru=0.0)
    assert (best, alike) == ("gru", ())
    assert headline.startswith("Only gru was judged: map@12 0.5000 (")
    assert reasons == ("It was judged alone, by 400 customers: there is nothing to compare it with.",)


def test_nothing_is_shipped_that_finds_nothing() -> None:
    found = decide({"a": pd.Series([0.0, 0.0]), "b": pd.Series([0.0, 0.0])}, baselines=["b"], metric="map@5")
    assert (found.recommender, found.headline) == ("", "Ship none of them yet.")
    assert found.reasons[0].startswith("map@5 is 0 for every recommender")
    assert decide({}, baselines=[]).recommender == ""


def test_other_customers_are_refused() -> None:
    series = {"a": pd.Series([1.0], index=[2]), "b": pd.Series([0.5], index=[3])}
    with pytest.raises(InputError, match="customers that are not the same"):
        decide(series, baselines=[])
