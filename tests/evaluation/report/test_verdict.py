import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.verdict import decide
from tfrs_fashion.schema import InputError

# All recommenders have a hit for every other customer; they differ only in what is added.
BASE = np.tile([0.0, 1.0], 200)


def values(**added: np.ndarray | float) -> dict[str, pd.Series]:
    return {name: pd.Series(BASE + extra) for name, extra in added.items()}


def decided(*names: str, **added: np.ndarray | float) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    found = decide(values(**added), baselines=names, num_samples=200)
    return found.recommender, found.alike, found.headline, found.reasons


def test_significantly_best_recommender_is_shipped() -> None:
    best, alike, headline, reasons = decided("repurchase", als=0.0, blend=0.2, repurchase=0.1)
    assert (best, alike, headline) == ("blend", (), "Ship blend.")
    assert reasons[0].startswith("blend has the highest map@12, 0.7000 (")
    assert "its lead over each of the 2 others is significant at 95%" in reasons[0]
    assert "the same 400 customers" in reasons[0]
    # 0.7 against 0.6 is a sixth more.
    assert reasons[1].startswith("blend vs repurchase on map@12: +16.7% (95% CI +")
    assert reasons[1].endswith("), significant (the runner-up and a baseline).")
    assert reasons[-1] == (
        "It was chosen from 3 on the customers that measure it, in one window: a small lead may not last."
    )
    assert len(reasons) == 3


def test_recommender_that_is_not_significantly_worse_is_named() -> None:
    # A difference of 0.001 on average, of ±0.5 for each customer: far below its standard error of 0.025.
    noise = np.tile([0.5, 0.5, -0.5, -0.5], 100)
    best, alike, headline, reasons = decided("popular", blend=0.001 + noise, gru=0.0, popular=-0.2)
    assert (best, alike, headline) == ("blend", ("gru",), "Ship blend or gru.")
    assert "its lead over gru is not significant with 400 customers" in reasons[0]
    assert reasons[1].startswith("blend vs gru on map@12: ")
    assert reasons[1].endswith(", not significant (the runner-up).")
    assert reasons[2].startswith("blend vs popular on map@12: +")
    assert reasons[2].endswith(", significant (a baseline).")


def test_three_alike_recommenders_are_joined_in_words() -> None:
    _best, alike, headline, reasons = decided(a=0.0, b=0.0, c=0.0)
    assert alike == ("b", "c")
    assert headline == "Ship a, b or c."
    assert "its lead over b and c is not significant" in reasons[0]


def test_best_recommender_that_is_a_baseline_is_called_one() -> None:
    best, _alike, _headline, reasons = decided("repurchase", repurchase=0.1, gru=0.0)
    assert best == "repurchase"
    assert "repurchase is itself a baseline: nothing more expensive has a higher map@12 here." in reasons


def test_single_recommender_has_no_comparison() -> None:
    best, alike, headline, reasons = decided(gru=0.0)
    assert (best, alike) == ("gru", ())
    assert headline.startswith("Only gru was evaluated: map@12 0.5000 (95% CI ")
    assert reasons == ("It was evaluated alone, on 400 customers: there is nothing to compare it with.",)


def test_nothing_is_shipped_without_any_hit() -> None:
    found = decide({"a": pd.Series([0.0, 0.0]), "b": pd.Series([0.0, 0.0])}, baselines=["b"], metric="map@5")
    assert (found.recommender, found.headline) == ("", "Ship none of them yet.")
    assert found.reasons[0].startswith("map@5 is 0 for every evaluated recommender")
    assert decide({}, baselines=[]).recommender == ""


def test_different_customers_are_refused() -> None:
    series = {"a": pd.Series([1.0], index=[2]), "b": pd.Series([0.5], index=[3])}
    with pytest.raises(InputError, match="customers that are not the same"):
        decide(series, baselines=[])
