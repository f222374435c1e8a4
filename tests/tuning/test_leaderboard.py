import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.tuning.leaderboard import BUDGET, JudgedTrial, Leaderboard, write_leaderboard


def make_trial(number: int, objective: float | None, *, status: str = "finished", **told: Any) -> JudgedTrial:
    values = told.pop("values", {"rate": 0.1 * (number + 1), "dims": [number]})
    error = "ValueError: no" if objective is None else ""
    curve = () if objective is None else (objective / 2, objective)
    return JudgedTrial(f"{number}", values, told.pop("budget", None), curve, len(curve), objective, 1.5, status, error)


def make_board(trials: list[JudgedTrial], **told: Any) -> Leaderboard:
    settings: dict[str, Any] = {
        "is_log": {"rate": True, "dims": False},
        "ranges": {"rate": (0.1, 6.0), "dims": [[number] for number in range(60)]},
        "choices": ["dims"],
        "direction": "max",
        **told,
    }
    return Leaderboard("two_tower", "map@3", trials=trials, **settings)


TRIALS = [
    make_trial(0, 0.2),
    make_trial(1, 0.3),
    make_trial(2, None, status="failed"),
    make_trial(3, 0.3, status="hopeless"),
    make_trial(4, 0.1),
]


def test_the_best_stands_first_and_of_equals_the_earlier() -> None:
    assert [trial.name for trial, _value in make_board(TRIALS).ranked] == ["1", "3", "0", "4"]
    assert [trial.name for trial, _value in make_board(TRIALS, direction="min").ranked] == ["4", "0", "1", "3"]


def test_the_gain_is_told_in_words() -> None:
    assert make_board(TRIALS).sentence == (
        "best of 5 trials: map@3 0.3000 on validation (trial 1); the pipeline's own settings have 0.2000"
    )
    failed = [make_trial(0, None, status="failed"), *TRIALS[1:]]
    assert make_board(failed).sentence.endswith("the pipeline's own settings failed")
    assert make_board(failed[:1]).sentence == "none of 1 trial(s) succeeded"
    short = [make_trial(0, 0.2, budget=1), make_trial(1, 0.3, budget=9)]
    assert make_board(short, whole=9).sentence.endswith("have 0.2000 after 1 of 9 epochs")


def test_with_hyperband_the_best_is_held_against_the_own_settings_with_the_most_epochs() -> None:
    own = {"rate": 0.1, "dims": [0]}
    trials = [
        make_trial(0, 0.2, budget=1, values=own),
        make_trial(1, 0.3, budget=9),
        make_trial(2, 0.25, budget=9, values=own),
    ]
    board = make_board(trials, whole=9)
    assert board.own.name == "2"
    assert board.sentence.endswith("the pipeline's own settings have 0.2500")
    failed = [*trials, make_trial(3, None, status="failed", budget=27, values=own)]
    assert make_board(failed, whole=9).own.name == "2"


def test_the_best_at_an_edge_asks_for_a_wider_space() -> None:
    assert make_board(TRIALS).hints == []
    found = make_board(TRIALS, ranges={"rate": (0.1, 0.2), "dims": [[number] for number in range(5)]}).hints
    assert found == ["the best lies at the edge of what was searched: rate (0.2)"]


def test_what_matters_is_found_and_what_does_not_is_not() -> None:
    random = np.random.default_rng(3)
    trials = []
    for number in range(60):
        rate, other = float(10 ** random.uniform(-3, -1)), int(random.integers(0, 3))
        # By the logarithm of the rate alone.
        trials.append(make_trial(number, float(np.log10(rate)) + 5.0, values={"rate": rate, "dims": [other]}))
    found = make_board(trials).measure_importance()
    assert found is not None
    assert list(found.share) == ["rate", "dims"]
    assert found.share["rate"] > 0.95
    assert sum(found.share.values()) == pytest.approx(1.0)
    assert found.fit > 0.8


def test_of_noise_nothing_is_told() -> None:
    random = np.random.default_rng(3)
    trials = [make_trial(number, float(random.random())) for number in range(30)]
    found = make_board(trials).measure_importance()
    assert found is None or found.fit < 0.2
    assert make_board(trials[:9]).measure_importance() is None
    assert make_board([make_trial(number, 0.5) for number in range(20)]).measure_importance() is None


def test_settings_become_numbers() -> None:
    board = make_board(TRIALS, is_log={"rate": True, "dims": False, "crosses": False}, whole=9)
    trials = [
        make_trial(0, 0.1, values={"rate": 1.0, "dims": [], "crosses": 2}, budget=3),
        make_trial(1, 0.1, values={"rate": np.e, "dims": [8]}, budget=9),
        make_trial(2, 0.1, values={"rate": 1.0, "dims": [], "crosses": 4}, budget=9),
    ]
    found = board.encode(trials)
    assert found["rate"].tolist() == [0.0, 1.0, 0.0]
    # By their text, in which a digit comes before a bracket.
    assert found["dims"].tolist() == [1.0, 0.0, 1.0]
    # What did not matter to a trial lies one below the least.
    assert found["crosses"].tolist() == [2.0, 1.0, 4.0]
    assert found[BUDGET].tolist() == [3.0, 9.0, 9.0]


def test_the_page_and_the_tables_hold_every_trial(tmp_path: Path) -> None:
    write_leaderboard(tmp_path, make_board(TRIALS), title="tiny <b>", algorithm="random", seed=1)
    frame = pd.read_parquet(tmp_path / "trials.parquet")
    assert frame["name"].tolist() == ["0", "1", "2", "3", "4"]
    assert frame["rate"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert frame["dims"].tolist() == ["[0]", "[1]", "[2]", "[3]", "[4]"]
    document = json.loads((tmp_path / "leaderboard.json").read_text())
    assert (document["best"], document["own"]) == ("1", "0")
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "tiny &lt;b&gt;" in page
    assert "ended early" in page
    assert "ValueError: no" in page
    assert (tmp_path / "figures" / "trials.png").stat().st_size > 5000


def test_a_page_of_failures_alone(tmp_path: Path) -> None:
    board = make_board([make_trial(0, None, status="failed", values={"rate": 0.1})])
    write_leaderboard(tmp_path, board, title="tiny", algorithm="random", seed=1)
    assert "None of 1 trial(s) succeeded" in (tmp_path / "leaderboard.html").read_text()
