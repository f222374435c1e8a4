import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from keras_tuner import HyperParameters
from keras_tuner.engine.hyperparameters import Float, Int

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import read_setting
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.settings.tune import ParameterConfig, TuneConfig, ordered
from tfrs_fashion.tuning.oracle import Search, make_oracle
from tfrs_fashion.tuning.space import (
    count_hyperband_draws,
    count_settings,
    decode,
    encode,
    make_space,
    write_down,
)

SPACE: dict[str, Any] = {
    "depth": {"type": "int", "low": 1, "high": 9},
    "rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
    "dims": {"type": "choice", "values": [[], [8], [8, 4]]},
    "kind": {"type": "choice", "values": ["plain", "cross"]},
    "crosses": {"type": "int", "low": 1, "high": 4, "when": {"kind": ["cross"]}},
}
OWN: dict[str, Any] = {"depth": 3, "rate": 0.01, "dims": (8,), "kind": "plain", "crosses": 2}


class KilledError(BaseException):
    """As if the process had been killed."""


def make_search(
    folder: Path, run: Callable[[str, dict[str, Any], int | None], float], *, max_epochs: int = 1, **settings: Any
) -> Search:
    told = TuneConfig.model_validate({"space": SPACE, "algorithm": "random", "max_trials": 8, **settings})
    ended: list[str] = []
    oracle = make_oracle(
        told, make_space(told, OWN), objective="map@3", max_epochs=max_epochs, seed=7, ended=ended.append
    )
    return Search(oracle, folder / "search", run, settings=told, objective="map@3")


def statuses(folder: Path) -> dict[str, str]:
    files = sorted((folder / "search").glob("trial_*/trial.json"))
    return {file.parent.name: json.loads(file.read_text())["status"] for file in files}


@pytest.mark.parametrize("name", list(SPACE))
def test_what_is_tried_comes_back_from_keras_tuner_as_it_was(name: str) -> None:
    parameter = TuneConfig.model_validate({"space": SPACE}).space[name]
    for value in parameter.values or (int(parameter.low or 0) or parameter.low, parameter.high):
        found = decode(parameter, json.loads(json.dumps(encode(parameter, value))))
        assert found == (list(value) if isinstance(value, tuple) else value)


def test_drawn_numbers_have_four_digits_within_their_range() -> None:
    rate = Float("rate", 0.0123456, 0.0987654, sampling="log", default=0.0234567)
    # The pipeline's own is no drawn one.
    assert [write_down(rate, value) for value in (0.0345678, 0.0123456, 0.0987654, 0.0234567)] == [
        *(0.03457, 0.01235, 0.0987654),
        0.0234567,
    ]
    steps = Float("steps", 1.0, 1.001, step=0.00005, default=1.0)
    assert write_down(steps, 1.0 + 7 * 0.00005) == 1.00035
    assert write_down(Int("size", 1, 20, sampling="log", default=1), 21) == 20


def test_the_pipelines_own_value_is_tried_as_it_is(tmp_path: Path) -> None:
    tried: list[Any] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values["rate"])
        return 0.5

    told = TuneConfig.model_validate({"space": SPACE, "algorithm": "random", "max_trials": 3})
    space = make_space(told, {**OWN, "rate": 0.0123456789})
    oracle = make_oracle(told, space, objective="map@3", max_epochs=1, seed=7, ended=lambda _id: None)
    Search(oracle, tmp_path / "search", run, settings=told, objective="map@3").search()
    assert tried[0] == 0.0123456789
    assert all(value == float(f"{value:.4g}") for value in tried[1:])


def test_the_settings_of_a_space_are_counted() -> None:
    space = TuneConfig.model_validate({"space": SPACE}).space
    assert count_settings(space) == math.inf
    del space["rate"]
    assert count_settings(space) == 9 * 3 * 2 * 4
    assert count_settings({"a": ParameterConfig(type="float", low=0.0, high=0.3, step=0.1)}) == 4
    # Li et al. 2018, table 1, with brackets of keras-tuner's sizes.
    assert count_hyperband_draws(9, 3) == 9 + 5 + 3


def test_numbers_of_a_choice_keep_their_order_and_others_are_text() -> None:
    space = TuneConfig.model_validate(
        {"space": {"a": {"type": "choice", "values": [1, 2.5]}, "b": {"type": "choice", "values": [1, "two", True]}}}
    ).space
    assert [encode(space["a"], value) for value in (1, 2.5)] == [1.0, 2.5]
    assert [encode(space["b"], value) for value in (1, "two", True)] == ["1", '"two"', "true"]


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_begins_with_the_pipelines_own_settings_and_tries_nothing_twice(
    tmp_path: Path, algorithm: str
) -> None:
    tried: list[dict[str, Any]] = []

    def run(_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is None
        tried.append(values)
        return float(values["depth"])

    make_search(tmp_path, run, algorithm=algorithm, num_initial_trials=3).search()
    assert len(tried) == 8
    # What depends on the other kind is left out.
    assert tried[0] == {"depth": 3, "rate": 0.01, "dims": [8], "kind": "plain"}
    assert len({json.dumps(values, sort_keys=True) for values in tried}) == 8
    for values in tried:
        assert 1 <= values["depth"] <= 9
        assert isinstance(values["depth"], int)
        assert 0.001 <= values["rate"] <= 0.1
        assert values["dims"] in ([], [8], [8, 4])
        assert ("crosses" in values) == (values["kind"] == "cross")
    assert {values["kind"] for values in tried} == {"plain", "cross"}


def test_a_killed_search_goes_on_without_losing_or_repeating_a_trial(tmp_path: Path) -> None:
    begun: list[str] = []
    whole: list[dict[str, Any]] = []
    make_search(tmp_path / "whole", lambda _id, values, _budget: whole.append(values) or 0.5).search()  # type: ignore[func-returns-value]
    tried: dict[str, dict[str, Any]] = {}

    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        tried[trial_id] = values
        if len(begun) in (3, 5):
            raise KilledError
        return 0.5

    for _kill in range(2):
        with pytest.raises(KilledError):
            make_search(tmp_path, run).search()
    make_search(tmp_path, run).search()
    # The third and, after it was done again, the fourth were under way when the process ended.
    assert begun == ["0", "1", "2", "2", "3", "3", "4", "5", "6", "7"]
    assert set(statuses(tmp_path).values()) == {"COMPLETED"}
    assert [tried[str(number)] for number in range(8)] == whole


def test_a_kill_between_two_files_neither_repeats_nor_forgets(tmp_path: Path) -> None:
    begun: list[str] = []
    state = tmp_path / "search" / "oracle.json"

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        if trial_id == "2" and begun.count("2") == 1:
            # As it stands while this trial runs.
            shutil.copy(state, tmp_path / "former.json")
        if trial_id == "3":
            raise KilledError
        return 0.5

    with pytest.raises(KilledError):
        make_search(tmp_path, run).search()
    # The process was killed after it wrote that trial 2 ended and that trial 3 began, and before it said so of the search.
    shutil.copy(tmp_path / "former.json", state)
    assert statuses(tmp_path)["trial_2"] == "COMPLETED"
    begun.clear()
    make_search(tmp_path, lambda trial_id, _values, _budget: begun.append(trial_id) or 0.5).search()  # type: ignore[func-returns-value]
    assert begun == ["3", "4", "5", "6", "7"]
    assert len(statuses(tmp_path)) == 8


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_that_goes_on_tries_what_one_that_was_never_killed_does(tmp_path: Path, algorithm: str) -> None:
    tried: dict[str, list[dict[str, Any]]] = {"whole": [], "killed": []}

    def run(trial_id: str, values: dict[str, Any], _budget: int | None, *, which: str, kill: bool = False) -> float:
        if kill and trial_id == "6":
            raise KilledError
        tried[which].append(values)
        return float(values["depth"])

    settings: dict[str, Any] = {"algorithm": algorithm, "num_initial_trials": 3, "max_trials": 9}
    make_search(tmp_path / "whole", partial(run, which="whole"), **settings).search()
    with pytest.raises(KilledError):
        make_search(tmp_path / "killed", partial(run, which="killed", kill=True), **settings).search()
    make_search(tmp_path / "killed", partial(run, which="killed"), **settings).search()
    assert tried["killed"] == tried["whole"]


def test_a_setting_may_depend_on_several_and_on_one_that_depends_itself(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "a": {"type": "choice", "values": ["x", "y"]},
        "n": {"type": "choice", "values": [1, 2.5]},
        "b": {"type": "choice", "values": [True, False], "when": {"a": ["x"]}},
        "c": {"type": "int", "low": 1, "high": 2, "when": {"b": [True]}},
        "d": {"type": "float", "low": 0.0, "high": 1.0, "when": {"a": ["x"], "n": [2.5]}},
    }
    told = TuneConfig.model_validate({"space": space, "algorithm": "random", "max_trials": 25})
    own = {"a": "x", "n": 1, "b": True, "c": 1, "d": 0.5}
    made = make_space(told, own)
    # As chief and workers exchange it.
    assert {hp.name for hp in HyperParameters.from_proto(made.to_proto()).space} == set(space)
    oracle = make_oracle(told, made, objective="map@3", max_epochs=1, seed=0, ended=lambda _id: None)
    tried: list[dict[str, Any]] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values)
        return 0.5

    Search(oracle, tmp_path / "search", run, settings=told, objective="map@3").search()
    assert len(tried) == 25
    assert tried[0] == {"a": "x", "n": 1.0, "b": True, "c": 1}
    for values in tried:
        assert ("b" in values) == (values["a"] == "x")
        assert ("c" in values) == (values.get("b") is True)
        assert ("d" in values) == (values["a"] == "x" and values["n"] == 2.5)
    assert {len(values) for values in tried} == {2, 3, 4, 5}


def test_whole_numbers_stay_below_the_end_of_their_range(tmp_path: Path) -> None:
    told = TuneConfig.model_validate(
        {
            "space": {"size": {"type": "int", "low": 2, "high": 20, "log": True}},
            "algorithm": "bayesian",
            "max_trials": 9,
        }
    )
    oracle = make_oracle(
        told, make_space(told, {"size": 5}), objective="map@3", max_epochs=1, seed=1, ended=lambda _id: None
    )
    tried: list[int] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values["size"])
        return float(values["size"])

    Search(oracle, tmp_path / "search", run, settings=told, objective="map@3").search()
    # The more the better, so that the end is tried.
    assert max(tried) == 20


def test_where_the_best_point_was_tried_the_gaussian_process_takes_one_beside_it(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "a": {"type": "int", "low": 0, "high": 30},
        "b": {"type": "int", "low": 0, "high": 30},
    }
    told = TuneConfig.model_validate({"space": space, "algorithm": "bayesian", "max_trials": 24})
    oracle = make_oracle(
        told, make_space(told, {"a": 5, "b": 25}), objective="map@3", max_epochs=1, seed=7, ended=lambda _id: None
    )
    tried: list[tuple[int, int]] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append((values["a"], values["b"]))
        return float(values["a"] - values["b"])  # the best is a corner

    Search(oracle, tmp_path / "search", run, settings=told, objective="map@3").search()
    assert len(set(tried)) == 24
    place = tried.index((30, 0))
    assert place < 15
    # Most of what is tried after it lies in the better fifth of the square.
    after = [a - b >= 12 for a, b in tried[place:]]
    assert sum(after) >= 0.7 * len(after)


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        return 0.5

    make_search(tmp_path, run, max_trials=2).search()
    make_search(tmp_path, run, max_trials=4).search()
    assert begun == ["0", "1", "2", "3"]


@pytest.mark.parametrize("failure", [ValueError("no"), MemoryError("12 GB"), float("nan"), float("inf")])
def test_a_trial_that_fails_is_told_of_and_the_search_goes_on(tmp_path: Path, failure: Any) -> None:
    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        if trial_id == "1":
            if isinstance(failure, Exception):
                raise failure
            return float(failure)
        return 0.5

    make_search(tmp_path, run, max_trials=4).search()
    assert list(statuses(tmp_path).values()) == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]


def test_failures_in_a_row_end_the_search(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        if trial_id in ("1", "3", "4"):
            raise ValueError("no")
        return 0.5

    make_search(tmp_path, run, max_failures=2).search()
    assert begun == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_a_search_of_failures_alone_is_given_up_by_every_algorithm(tmp_path: Path, algorithm: str) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        raise ValueError("no")

    for _time in range(2):  # asked again, it says so again
        search = make_search(tmp_path, run, max_failures=3, algorithm=algorithm, max_epochs=9)
        search.search()
        assert [int(trial_id) for trial_id in begun] == [0, 1, 2]
        assert search.oracle.gave_up


def test_a_search_whose_last_trials_failed_was_not_given_up(tmp_path: Path) -> None:
    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        if trial_id in ("2", "3"):
            raise ValueError("no")
        return 0.5

    search = make_search(tmp_path, run, max_trials=4, max_failures=3)
    search.search()
    assert not search.oracle.gave_up


def test_no_trial_begins_after_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tfrs_fashion.tuning.oracle.time.monotonic", lambda: now)
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        nonlocal now
        begun.append(trial_id)
        now += 50.0
        return 0.5

    # At 0, 50, and 100 seconds of 120.
    make_search(tmp_path, run, max_minutes=2).search()
    assert begun == ["0", "1", "2"]
    make_search(tmp_path, run, max_minutes=1).search()
    assert begun == ["0", "1", "2", "3", "4"]


def test_hyperband_gives_the_better_trials_more_epochs(tmp_path: Path) -> None:
    given: list[tuple[int, int]] = []

    def run(_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is not None
        given.append((values["depth"], budget))
        return float(values["depth"])

    make_search(tmp_path, run, algorithm="hyperband", max_epochs=9).search()
    assert given[0] == (3, 1)
    by_budget = {budget: [depth for depth, found in given if found == budget] for budget in (1, 3, 9)}
    # Of the first bracket the best go on; a later bracket begins with 3 epochs, and the last with all 9.
    num_first = len(by_budget[1])
    assert num_first == 9
    assert sorted(by_budget[1])[-3:] == sorted(by_budget[3][:3])
    assert max(by_budget[3][:3]) == by_budget[9][0]


def test_hyperband_goes_on_with_those_that_did_not_fail(tmp_path: Path) -> None:
    given: list[tuple[str, int]] = []

    def run(trial_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is not None
        given.append((trial_id, budget))
        if budget == 1 and len(given) % 3 == 0:
            raise ValueError("no")
        return float(values["depth"])

    search = make_search(tmp_path, run, algorithm="hyperband", max_epochs=9, max_failures=3)
    search.search()
    failed = {name for name, status in statuses(tmp_path).items() if status == "FAILED"}
    assert len(failed) == 3
    # Of nine, three failed, three go on, and one of these.
    first = [budget for _id, budget in given][:13]
    assert first == [1] * 9 + [3] * 3 + [9]


def test_hyperband_sweeps_as_often_as_is_asked_for_now(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        return float(values["depth"])

    make_search(tmp_path, run, algorithm="hyperband", max_epochs=3).search()
    once = len(begun)
    make_search(tmp_path, run, algorithm="hyperband", max_epochs=3, num_sweeps=2).search()
    assert len(begun) == len(set(begun)) == 2 * once


def test_the_pipelines_own_value_has_to_lie_in_the_space() -> None:
    told = TuneConfig.model_validate({"space": SPACE})
    with pytest.raises(
        InputError, match=r"tune\.space\.depth: the pipeline's own value is 12, which is not between 1 and 9"
    ):
        make_space(told, {**OWN, "depth": 12})
    with pytest.raises(InputError, match=r"tune\.space\.dims: .* is \[3\], which is none of \[\], \[8\], \[8, 4\]"):
        make_space(told, {**OWN, "dims": (3,)})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a": {"type": "int", "low": 9, "high": 1}}, "`low` is 9 and `high` is 1; expected `low` below `high`"),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "`log` needs a `low` above 0"),
        ({"a": {"type": "float", "low": 0.0}}, "a float needs `low` and `high`"),
        ({"a": {"type": "int", "low": 1, "high": 2.5}}, "an int has whole numbers"),
        ({"a": {"type": "choice", "values": [1]}}, "at least two values, each once"),
        ({"a": {"type": "choice", "values": [1, 1]}}, "at least two values, each once"),
        ({"a": {"type": "choice", "values": [1, 2], "low": 0}}, "leave out low"),
        ({"a": {"type": "int", "low": 1, "high": 2, "values": [1]}}, '`values` are for the type "choice"'),
        ({"a": {"type": "float", "low": 1, "high": 2, "log": True, "step": 1}}, "exclude each other"),
        ({"a": {"type": "float", "low": float("nan"), "high": 2}}, "expected `low` below `high`"),
        ({"a": {"type": "int", "low": 1, "high": 2, "when": {"b": [1]}}}, "names `b`, which is no other setting"),
        (
            {"a": {"type": "int", "low": 1, "high": 2}, "b": {"type": "int", "low": 1, "high": 2, "when": {"a": [1]}}},
            "names `a`, which is a int; a condition needs a choice",
        ),
        (
            {
                "a": {"type": "choice", "values": [1, 2]},
                "b": {"type": "int", "low": 1, "high": 2, "when": {"a": [3]}},
            },
            "names 3, which is none of the values of `a`",
        ),
        (
            {
                "a": {"type": "choice", "values": [1, 2], "when": {"b": [1]}},
                "b": {"type": "choice", "values": [1, 2], "when": {"a": [1]}},
            },
            "a, b depend on each other in a circle",
        ),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TuneConfig.model_validate({"space": space})


def test_settings_come_after_those_that_they_depend_on() -> None:
    told = TuneConfig.model_validate(
        {
            "space": {
                "c": {"type": "int", "low": 1, "high": 2, "when": {"b": [1]}},
                "b": {"type": "choice", "values": [1, 2], "when": {"a": ["x"]}},
                "a": {"type": "choice", "values": ["x", "y"]},
            }
        }
    )
    assert ordered(told.space) == ["a", "b", "c"]


def test_every_search_that_is_declared_begins_from_its_pipelines_own_settings(root: Path) -> None:
    searched = []
    for path in sorted((root / "pipelines").glob("*.toml")):
        config = load_config(path)
        if config.tune.space:
            make_space(config.tune, {name: read_setting(config, name) for name in config.tune.space})
            searched.append(path.stem)
    assert searched == ["complete_journey", "rent_the_runway", "tiny"]
