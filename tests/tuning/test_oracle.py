import json
import shutil
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from keras_tuner import HyperParameters

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.tune import TuneConfig
from tfrs_fashion.tuning.oracle import TrialLoop, make_oracle
from tfrs_fashion.tuning.space import make_space

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


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfrs_fashion.tuning.oracle._PAUSE_SECONDS", 0.01)


def make_loop(
    folder: Path,
    run: Callable[[str, dict[str, Any], int | None], float],
    *,
    own: dict[str, Any] = OWN,
    seed: int = 7,
    max_epochs: int = 1,
    **settings: Any,
) -> TrialLoop:
    config = TuneConfig.model_validate({"space": SPACE, "algorithm": "random", "max_trials": 8, **settings})
    oracle = make_oracle(config, make_space(config, own), objective="map@3", max_epochs=max_epochs, seed=seed)
    return TrialLoop(oracle, folder / "search", run, settings=config)


def statuses(folder: Path) -> dict[str, str]:
    files = sorted((folder / "search").glob("trial_*/trial.json"))
    return {file.parent.name: json.loads(file.read_text())["status"] for file in files}


def test_own_value_is_tried_unrounded_in_the_first_trial(tmp_path: Path) -> None:
    tried: list[Any] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values["rate"])
        return 0.5

    make_loop(tmp_path, run, own={**OWN, "rate": 0.0123456789}, max_trials=3).search()
    assert tried[0] == 0.0123456789
    assert all(value == float(f"{value:.4g}") for value in tried[1:])


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_search_begins_with_own_settings_and_tries_nothing_twice(tmp_path: Path, algorithm: str) -> None:
    tried: list[dict[str, Any]] = []

    def run(_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is None
        tried.append(values)
        return float(values["depth"])

    make_loop(tmp_path, run, algorithm=algorithm, num_initial_trials=3).search()
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


def test_killed_search_resumes_without_losing_or_repeating_a_trial(tmp_path: Path) -> None:
    begun: list[str] = []
    whole: list[dict[str, Any]] = []
    make_loop(tmp_path / "whole", lambda _id, values, _budget: whole.append(values) or 0.5).search()  # type: ignore[func-returns-value]
    tried: dict[str, dict[str, Any]] = {}

    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        tried[trial_id] = values
        if len(begun) in (3, 5):
            raise KilledError
        return 0.5

    for _kill in range(2):
        with pytest.raises(KilledError):
            make_loop(tmp_path, run).search()
    make_loop(tmp_path, run).search()
    # The third and, after it was done again, the fourth were under way when the process ended.
    assert begun == ["0", "1", "2", "2", "3", "3", "4", "5", "6", "7"]
    assert set(statuses(tmp_path).values()) == {"COMPLETED"}
    assert [tried[str(number)] for number in range(8)] == whole


def test_kill_between_two_writes_neither_repeats_nor_loses_a_trial(tmp_path: Path) -> None:
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
        make_loop(tmp_path, run).search()
    # The process was killed after it wrote that trial 2 ended and that trial 3 began, and before it said so of the search.
    shutil.copy(tmp_path / "former.json", state)
    assert statuses(tmp_path)["trial_2"] == "COMPLETED"
    begun.clear()
    make_loop(tmp_path, lambda trial_id, _values, _budget: begun.append(trial_id) or 0.5).search()  # type: ignore[func-returns-value]
    assert begun == ["3", "4", "5", "6", "7"]
    assert len(statuses(tmp_path)) == 8


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_resumed_search_tries_the_same_settings_as_an_uninterrupted_one(tmp_path: Path, algorithm: str) -> None:
    tried: dict[str, list[dict[str, Any]]] = {"whole": [], "killed": []}

    def run(trial_id: str, values: dict[str, Any], _budget: int | None, *, which: str, kill: bool = False) -> float:
        if kill and trial_id == "4":
            raise KilledError
        tried[which].append(values)
        return float(values["depth"])

    settings: dict[str, Any] = {"algorithm": algorithm, "num_initial_trials": 3, "max_trials": 6}
    make_loop(tmp_path / "whole", partial(run, which="whole"), **settings).search()
    with pytest.raises(KilledError):
        make_loop(tmp_path / "killed", partial(run, which="killed", kill=True), **settings).search()
    make_loop(tmp_path / "killed", partial(run, which="killed"), **settings).search()
    assert tried["killed"] == tried["whole"]


def test_conditions_may_be_several_and_nested(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "a": {"type": "choice", "values": ["x", "y"]},
        "n": {"type": "choice", "values": [1, 2.5]},
        "b": {"type": "choice", "values": [True, False], "when": {"a": ["x"]}},
        "c": {"type": "int", "low": 1, "high": 2, "when": {"b": [True]}},
        "d": {"type": "float", "low": 0.0, "high": 1.0, "when": {"a": ["x"], "n": [2.5]}},
    }
    own = {"a": "x", "n": 1, "b": True, "c": 1, "d": 0.5}
    tried: list[dict[str, Any]] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values)
        return 0.5

    loop = make_loop(tmp_path, run, own=own, seed=0, space=space, max_trials=25)
    # Chief and workers exchange the space in this form.
    assert {hp.name for hp in HyperParameters.from_proto(loop.oracle.get_space().to_proto()).space} == set(space)
    loop.search()
    assert len(tried) == 25
    assert tried[0] == {"a": "x", "n": 1.0, "b": True, "c": 1}
    for values in tried:
        assert ("b" in values) == (values["a"] == "x")
        assert ("c" in values) == (values.get("b") is True)
        assert ("d" in values) == (values["a"] == "x" and values["n"] == 2.5)
    assert {len(values) for values in tried} == {2, 3, 4, 5}


def test_integers_drawn_logarithmically_stay_within_their_range(tmp_path: Path) -> None:
    space = {"size": {"type": "int", "low": 2, "high": 20, "log": True}}
    tried: list[int] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append(values["size"])
        return float(values["size"])

    make_loop(tmp_path, run, own={"size": 5}, seed=1, space=space, algorithm="bayesian", max_trials=9).search()
    # The more the better, so that the end is tried.
    assert max(tried) == 20


def test_bayesian_search_tries_a_neighbour_if_the_best_point_was_tried(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "a": {"type": "int", "low": 0, "high": 30},
        "b": {"type": "int", "low": 0, "high": 30},
    }
    tried: list[tuple[int, int]] = []

    def run(_id: str, values: dict[str, Any], _budget: int | None) -> float:
        tried.append((values["a"], values["b"]))
        return float(values["a"] - values["b"])  # the best is a corner

    make_loop(tmp_path, run, own={"a": 5, "b": 25}, space=space, algorithm="bayesian", max_trials=24).search()
    assert len(set(tried)) == 24
    place = tried.index((30, 0))
    assert place < 15
    # Most of what is tried after it lies in the better fifth of the square.
    after = [a - b >= 12 for a, b in tried[place:]]
    assert sum(after) >= 0.7 * len(after)


def test_finished_search_continues_if_max_trials_is_raised(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        return 0.5

    make_loop(tmp_path, run, max_trials=2).search()
    make_loop(tmp_path, run, max_trials=4).search()
    assert begun == ["0", "1", "2", "3"]


@pytest.mark.parametrize("failure", [ValueError("no"), MemoryError("12 GB"), float("nan"), float("inf")])
def test_failed_trial_is_recorded_and_the_search_continues(tmp_path: Path, failure: Any) -> None:
    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        if trial_id == "1":
            if isinstance(failure, Exception):
                raise failure
            return float(failure)
        return 0.5

    make_loop(tmp_path, run, max_trials=4).search()
    assert list(statuses(tmp_path).values()) == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]


def test_search_ends_after_max_failures_in_a_row(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        if trial_id in ("1", "3", "4"):
            raise ValueError("no")
        return 0.5

    make_loop(tmp_path, run, max_failures=2).search()
    assert begun == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_every_algorithm_gives_up_if_all_trials_fail(tmp_path: Path, algorithm: str) -> None:
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        raise ValueError("no")

    for _time in range(2):  # asked again, it says so again
        loop = make_loop(tmp_path, run, max_failures=3, algorithm=algorithm, max_epochs=9)
        loop.search()
        assert [int(trial_id) for trial_id in begun] == [0, 1, 2]
        assert loop.oracle.stop.gave_up


def test_search_is_not_given_up_if_fewer_than_max_failures_failed_last(tmp_path: Path) -> None:
    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        if trial_id in ("2", "3"):
            raise ValueError("no")
        return 0.5

    loop = make_loop(tmp_path, run, max_trials=4, max_failures=3)
    loop.search()
    assert not loop.oracle.stop.gave_up


def test_no_trial_begins_after_max_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tfrs_fashion.tuning.oracle.time.monotonic", lambda: now)
    begun: list[str] = []

    def run(trial_id: str, _values: dict[str, Any], _budget: int | None) -> float:
        nonlocal now
        begun.append(trial_id)
        now += 50.0
        return 0.5

    # At 0, 50, and 100 seconds of 120.
    make_loop(tmp_path, run, max_minutes=2).search()
    assert begun == ["0", "1", "2"]
    make_loop(tmp_path, run, max_minutes=1).search()
    assert begun == ["0", "1", "2", "3", "4"]


def test_hyperband_gives_better_trials_more_epochs(tmp_path: Path) -> None:
    given: list[tuple[int, int]] = []

    def run(_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is not None
        given.append((values["depth"], budget))
        return float(values["depth"])

    make_loop(tmp_path, run, algorithm="hyperband", max_epochs=9).search()
    assert given[0] == (3, 1)
    by_budget = {budget: [depth for depth, found in given if found == budget] for budget in (1, 3, 9)}
    # Of the first bracket the best go on; a later bracket begins with 3 epochs, and the last with all 9.
    num_first = len(by_budget[1])
    assert num_first == 9
    assert sorted(by_budget[1])[-3:] == sorted(by_budget[3][:3])
    assert max(by_budget[3][:3]) == by_budget[9][0]


def test_hyperband_promotes_only_trials_that_did_not_fail(tmp_path: Path) -> None:
    given: list[tuple[str, int]] = []

    def run(trial_id: str, values: dict[str, Any], budget: int | None) -> float:
        assert budget is not None
        given.append((trial_id, budget))
        if budget == 1 and len(given) % 3 == 0:
            raise ValueError("no")
        return float(values["depth"])

    loop = make_loop(tmp_path, run, algorithm="hyperband", max_epochs=9, max_failures=3)
    loop.search()
    failed = {name for name, status in statuses(tmp_path).items() if status == "FAILED"}
    assert len(failed) == 3
    # Of nine, three failed, three go on, and one of these.
    first = [budget for _id, budget in given][:13]
    assert first == [1] * 9 + [3] * 3 + [9]


def test_finished_hyperband_search_continues_if_num_sweeps_is_raised(tmp_path: Path) -> None:
    begun: list[str] = []

    def run(trial_id: str, values: dict[str, Any], _budget: int | None) -> float:
        begun.append(trial_id)
        return float(values["depth"])

    make_loop(tmp_path, run, algorithm="hyperband", max_epochs=3).search()
    once = len(begun)
    make_loop(tmp_path, run, algorithm="hyperband", max_epochs=3, num_sweeps=2).search()
    assert len(begun) == len(set(begun)) == 2 * once


def test_second_chief_at_one_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in (("IP", "127.0.0.1"), ("PORT", str(port))):
            monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
        monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
        with pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1:\d+.*choose another port"):
            make_loop(tmp_path, lambda *_args: 0.5).search()


def test_chief_listens_where_connections_of_a_former_one_linger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as former:
        port = former.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as worker:
            served, _address = former.accept()
            served.close()  # the side that closes first lingers
            worker.recv(1)
    for name, value in (("IP", "127.0.0.1"), ("PORT", str(port))):
        monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    stopped = threading.Event()
    stopped.set()
    make_loop(tmp_path, lambda *_args: 0.5).search(stopped)
