"""The back-test page: pooled metrics, tables and refused input."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from tfrs_fashion.evaluation.report.backtest_page import BacktestWindow, backtest_table, pool_customers, write_backtest
from tfrs_fashion.schema import InputError

NAN = float("nan")


def make_rows() -> pd.DataFrame:
    """Customer 1 buys in both windows, customer 2 in the first, customer 3 in the second."""
    rows = [
        ("popularity_7d", "a", 1, 0.2, 0.0, 0.5, NAN),
        ("popularity_7d", "a", 2, 0.0, 0.2, 0.5, 0.1),
        ("popularity_7d", "b", 1, 0.4, 0.4, 0.5, 0.3),
        ("popularity_7d", "b", 3, 0.6, 0.2, 0.5, NAN),
        ("gru", "a", 1, 0.4, 0.0, 1.0, NAN),
        ("gru", "a", 2, 0.0, 0.4, 1.0, 0.2),
        ("gru", "b", 1, 0.8, 0.8, 1.0, 0.6),
        ("gru", "b", 3, 1.0, 0.4, 1.0, NAN),
    ]
    columns = ["recommender", "window", "customer_index", "map@2", "recall@2", "recall@9", "map@2_new"]
    return pd.DataFrame(rows, columns=columns).assign(**{"precision@2": 0.5})


def write(folder: Path, rows: pd.DataFrame | None = None, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "title": "shop",
        "windows": [BacktestWindow("a", 2), BacktestWindow("b", 2)],
        "chosen_on": "z",
        "chosen": {"gru": {"epochs": 3}},
        "baselines": ["popularity_7d"],
        "k": 2,
        "num_samples": 50,
    }
    return write_backtest(folder, make_rows() if rows is None else rows, **{**settings, **changes})


def test_customer_of_two_windows_counts_once() -> None:
    pooled = pool_customers(make_rows(), ["map@2", "map@2_new"])
    assert list(pooled) == ["popularity_7d", "gru"]
    # Of customer 1: the mean of .4 and .8; new purchases concern the second window alone.
    expected = pd.DataFrame({"map@2": [0.6, 0.0, 1.0], "map@2_new": [0.6, 0.2, NAN]}, index=[1, 2, 3])
    pd.testing.assert_frame_equal(pooled["gru"], expected, check_names=False)


def test_metrics_are_means_over_customers_for_whom_they_are_defined(tmp_path: Path) -> None:
    document = write(tmp_path)
    assert document["customers"] == 3
    figures = document["recommenders"]["gru"]
    assert figures["map@2"]["value"] == pytest.approx(1.6 / 3)
    assert figures["map@2_new"]["value"] == pytest.approx(0.4)
    assert document["by_window"]["gru"] == {"a": pytest.approx(0.2), "b": pytest.approx(0.9)}
    # (1.6 - .9) / .9: popularity has .3, 0 and .6.
    assert document["differences"][0]["difference"]["relative"] == pytest.approx(0.7 / 0.9)


def test_verdict_states_the_number_of_windows(tmp_path: Path) -> None:
    assert "in 2 windows: a small lead may not last." in write(tmp_path)["verdict"]["reasons"][-1]


def test_different_customers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gru was evaluated on 3 \(window, customer\) pairs and popularity_7d on 4"):
        write(tmp_path, make_rows().iloc[:-1])


def test_customer_twice_in_a_window_is_refused(tmp_path: Path) -> None:
    rows = make_rows()
    with pytest.raises(InputError, match=r"2 row\(s\) repeat a customer of a window"):
        write(tmp_path, pd.concat([rows, rows.iloc[[0, 4]]]))


def test_markdown_table_has_all_columns(tmp_path: Path) -> None:
    write(tmp_path)
    lines = (tmp_path / "backtest.md").read_text(encoding="utf-8").splitlines()
    head = "| recommender | map@2 (95%) | recall@2 | precision@2 | map@2_new | recall@9 | against popularity_7d |"
    assert lines[0] == head
    assert lines[1].count("|") == lines[0].count("|")
    assert lines[2].startswith("| `popularity_7d` | 0.3000 (")
    # recall@2: (0 + .8) / 2, .4 and .4.
    assert " | 0.4000 | 0.5000 | 0.4000 | 1.0000 | +77.8% (" in lines[3]
    assert lines[-1] == "3 customers. Windows from (customers): a (2), b (2)."


def test_recommenders_of_new_arrivals_are_shown_but_not_compared(tmp_path: Path) -> None:
    document = write(tmp_path, new_arrivals=["gru"])
    assert document["differences"] == []
    assert document["verdict"]["headline"].startswith("Only popularity_7d was evaluated")
    assert "gru" in document["recommenders"]


def test_page_and_terminal_show_every_recommender_escaped(tmp_path: Path) -> None:
    rows = make_rows().replace("gru", "<gru>")
    document = write(tmp_path, rows, chosen={"<gru>": {"epochs": 3}})
    page = (tmp_path / "backtest.html").read_text(encoding="utf-8")
    assert "<gru>" not in page
    assert page.count("&lt;gru&gt;") >= 4
    assert "epochs 3" in page
    assert "Windows" not in page.split("</h1>")[0]
    console = Console(width=80, record=True)
    console.print(backtest_table(document))
    text = console.export_text()
    assert "3 customers in 2 window(s)" in text
    assert "0.5333" in text
