import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.run.objective import Objective
from tfrs_fashion.settings.tune import ParameterConfig
from tfrs_fashion.tuning.leaderboard import BUDGET, Leaderboard, write_leaderboard
from tfrs_fashion.tuning.trials import TrialRecord

RATE = ParameterConfig(type="float", low=0.1, high=6.0, log=True)
DIMS = ParameterConfig(type="choice", values=tuple((number,) for number in range(60)))


def make_trial(number: int, objective: float | None, *, status: str = "finished", **fields: Any) -> TrialRecord:
    values = fields.pop("values", {"rate": 0.1 * (number + 1), "dims": [number]})
    curve = [] if objective is None else [{"val_map@3": objective / 2}, {"val_map@3": objective}]
    error = "ValueError: no" if objective is None else ""
    return TrialRecord(f"{number}", values, curve=curve, seconds=1.5, status=status, error=error, **fields)  # type: ignore[arg-type]


def make_board(trials: list[TrialRecord], *, direction: str = "max", **fields: Any) -> Leaderboard:
    space = fields.pop("space", {"rate": RATE, "dims": DIMS})
    return Leaderboard("two_tower", Objective("map@3", direction), space, trials, **fields)


TRIALS = [
    make_trial(0, 0.2),
    make_trial(1, 0.3),
    make_trial(2, None, status="failed"),
    make_trial(3, 0.3, status="pruned"),
    make_trial(4, 0.1),
]


def test_best_trial_ranks_first_and_of_equals_the_earlier() -> None:
    assert [trial.name for trial, _value in make_board(TRIALS).ranked] == ["1", "3", "0", "4"]
    assert [trial.name for trial, _value in make_board(TRIALS, direction="min").ranked] == ["4", "0", "1", "3"]


def test_sentence_states_the_gain_over_own_settings() -> None:
    assert make_board(TRIALS).sentence == (
        "best of 5 trials: map@3 0.3000 on validation (trial 1); the pipeline's own settings have 0.2000"
    )
    failed = [make_trial(0, None, status="failed"), *TRIALS[1:]]
    assert make_board(failed).sentence.endswith("the pipeline's own settings failed")
    assert make_board(failed[:1]).sentence == "none of 1 trial(s) succeeded"
    short = [make_trial(0, 0.2, budget=1), make_trial(1, 0.3, budget=9)]
    assert make_board(short, max_epochs=9).sentence.endswith("have 0.2000 after 1 of 9 epochs")


def test_own_trial_of_hyperband_is_the_one_with_the_most_epochs() -> None:
    own = {"rate": 0.1, "dims": [0]}
    trials = [
        make_trial(0, 0.2, budget=1, values=own),
        make_trial(1, 0.3, budget=9),
        make_trial(2, 0.25, budget=9, values=own),
    ]
    board = make_board(trials, max_epochs=9)
    assert board.own.name == "2"
    assert board.sentence.endswith("the pipeline's own settings have 0.2500")
    failed = [*trials, make_trial(3, None, status="failed", budget=27, values=own)]
    assert make_board(failed, max_epochs=9).own.name == "2"


def test_best_trial_at_an_edge_of_the_space_gives_a_hint() -> None:
    assert make_board(TRIALS).hints == []
    narrow = ParameterConfig(type="float", low=0.1, high=0.2, log=True)
    assert make_board(TRIALS, space={"rate": narrow, "dims": DIMS}).hints == [
        "the best lies at the edge of what was searched: rate (0.2)"
    ]


def test_importance_separates_settings_that_matter_from_those_that_do_not() -> None:
    random = np.random.default_rng(3)
    trials = []
    for number in range(60):
        rate, other = float(10 ** random.uniform(-3, -1)), int(random.integers(0, 3))
        # By the logarithm of the rate alone.
        trials.append(make_trial(number, float(np.log10(rate)) + 5.0, values={"rate": rate, "dims": [other]}))
    importance = make_board(trials).measure_importance()
    assert importance is not None
    assert list(importance.share) == ["rate", "dims"]
    assert importance.share["rate"] > 0.95
    assert sum(importance.share.values()) == pytest.approx(1.0)
    assert importance.fit > 0.8


def test_importance_is_none_or_fits_badly_for_noise() -> None:
    random = np.random.default_rng(3)
    trials = [make_trial(number, float(random.random())) for number in range(30)]
    importance = make_board(trials).measure_importance()
    assert importance is None or importance.fit < 0.2
    assert make_board(trials[:9]).measure_importance() is None
    assert make_board([make_trial(number, 0.5) for number in range(20)]).measure_importance() is None


def test_encode_turns_settings_into_numbers() -> None:
    board = make_board(
        TRIALS, space={"rate": RATE, "dims": DIMS, "crosses": ParameterConfig(type="int", low=1, high=4)}, max_epochs=9
    )
    trials = [
        make_trial(0, 0.1, values={"rate": 1.0, "dims": [], "crosses": 2}, budget=3),
        make_trial(1, 0.1, values={"rate": np.e, "dims": [8]}, budget=9),
        make_trial(2, 0.1, values={"rate": 1.0, "dims": [], "crosses": 4}, budget=9),
    ]
    encoded = board.encode(trials)
    assert encoded["rate"].tolist() == [0.0, 1.0, 0.0]
    # By their text, in which a digit comes before a bracket.
    assert encoded["dims"].tolist() == [1.0, 0.0, 1.0]
    # A setting that did not take effect in a trial is one below the lowest.
    assert encoded["crosses"].tolist() == [2.0, 1.0, 4.0]
    assert encoded[BUDGET].tolist() == [3.0, 9.0, 9.0]


def test_page_and_tables_hold_every_trial(tmp_path: Path) -> None:
    write_leaderboard(tmp_path, make_board(TRIALS), title="tiny <b>", algorithm="random", seed=1)
    frame = pd.read_parquet(tmp_path / "trials.parquet")
    assert frame["name"].tolist() == ["0", "1", "2", "3", "4"]
    assert frame["rate"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert frame["dims"].tolist() == ["[0]", "[1]", "[2]", "[3]", "[4]"]
    document = json.loads((tmp_path / "leaderboard.json").read_text())
    assert (document["best"], document["own"]) == ("1", "0")
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "tiny &lt;b&gt;" in page
    assert "pruned" in page
    assert "ValueError: no" in page
    assert (tmp_path / "figures" / "trials.png").stat().st_size > 5000


def test_page_is_written_if_all_trials_failed(tmp_path: Path) -> None:
    board = make_board([make_trial(0, None, status="failed", values={"rate": 0.1})])
    write_leaderboard(tmp_path, board, title="tiny", algorithm="random", seed=1)
    assert "None of 1 trial(s) succeeded" in (tmp_path / "leaderboard.html").read_text()
