import json
import math
from pathlib import Path

import pytest

from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import RunError
from tfrs_fashion.tuning.pruning import TrialMonitor, TrialPrunedError, should_prune
from tfrs_fashion.tuning.trials import TrialRecord, read_trials

OBJECTIVE = Objective("map@3")


def make_record(*values: float, status: str = "finished") -> TrialRecord:
    record = TrialRecord("0", {"depth": 3}, curve=[{"val_map@3": value} for value in values])
    record.status = status  # type: ignore[assignment]
    return record


OTHERS = [[0.1, 0.3], [0.2, 0.2, 0.9], [0.3]]


@pytest.mark.parametrize(
    ("curve", "direction", "expected"),
    [
        # Reached after one epoch: .1, .2, .3, of which the median is .2.
        ([0.19], "max", True),
        ([0.2], "max", False),
        # After two: .3, .2 and .3 (which ended before), so .3.
        ([0.19, 0.29], "max", True),
        ([0.35, 0.1], "max", False),
        # The lowest so far: .1, .2, .3.
        ([0.21], "min", True),
        ([0.2], "min", False),
        ([], "max", False),
    ],
)
def test_a_trial_below_the_median_of_the_others_should_prune(
    curve: list[float], direction: str, expected: bool
) -> None:
    assert should_prune(curve, OTHERS, direction=direction, min_trials=3) is expected


def test_with_few_trials_none_should_prune() -> None:
    assert not should_prune([0.0], OTHERS, direction="max", min_trials=4)


def test_best_epoch_is_the_first_of_equals() -> None:
    assert make_record(0.1, 0.4, 0.4, 0.2).best(OBJECTIVE) == (2, 0.4)
    assert make_record(0.3, 0.1, 0.2).best(Objective("map@3", "min")) == (2, 0.1)


def test_record_is_stored_after_every_epoch(tmp_path: Path) -> None:
    record = TrialRecord("0", values={"dims": [8, 4], "name": "Größe"}, attempts=1)
    monitor = TrialMonitor(tmp_path, "0", record, objective=OBJECTIVE)
    for number, value in enumerate((0.1, 0.2), start=1):
        monitor({"val_map@3": value})
        (stored,) = read_trials(tmp_path).values()
        assert stored.curve == [{"val_map@3": value} for value in (0.1, 0.2)][:number]
    assert stored.values == {"dims": [8, 4], "name": "Größe"}
    assert stored.status == "running"


def test_trial_is_pruned_by_the_records_of_finished_trials_only(tmp_path: Path) -> None:
    for name, values in (("0", (0.4,)), ("1", (0.5,))):
        make_record(*values).save(tmp_path / f"trial_{name}")
    make_record(0.9, status="failed").save(tmp_path / "trial_2")
    make_record(0.9, status="running").save(tmp_path / "trial_3")
    monitor = TrialMonitor(tmp_path, "4", TrialRecord("4", {}), objective=OBJECTIVE, min_trials=2)
    # The median of those two alone is .45.
    monitor({"val_map@3": 0.46})
    monitor = TrialMonitor(tmp_path, "5", TrialRecord("5", {}), objective=OBJECTIVE, min_trials=2)
    with pytest.raises(TrialPrunedError):
        monitor({"val_map@3": 0.44})


def test_trial_is_not_pruned_after_its_last_epoch(tmp_path: Path) -> None:
    for number in range(2):
        make_record(0.5, 0.6).save(tmp_path / f"trial_{number}")
    monitor = TrialMonitor(tmp_path, "2", TrialRecord("2", {}), objective=OBJECTIVE, min_trials=2, epochs=1)
    monitor({"val_map@3": 0.1})


def test_trials_of_other_budgets_are_ignored(tmp_path: Path) -> None:
    for number in range(3):
        short = make_record(0.9)
        short.budget = 1
        short.save(tmp_path / f"trial_{number}")
    record = TrialRecord("3", values={}, budget=9)
    monitor = TrialMonitor(tmp_path, "3", record, objective=OBJECTIVE, min_trials=2)
    monitor({"val_map@3": 0.1})
    assert read_trials(tmp_path)["3"].curve == [{"val_map@3": 0.1}]


def test_objective_that_is_not_a_number_fails(tmp_path: Path) -> None:
    monitor = TrialMonitor(tmp_path, "0", TrialRecord("0", {}), objective=OBJECTIVE)
    monitor({"val_map@3": 0.5})
    with pytest.raises(RunError, match=r"map@3 is nan after epoch 2"):
        monitor({"val_map@3": math.nan})


def test_trials_are_read_in_numerical_order(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make_record(number / 10).save(tmp_path / f"trial_{number}")
    (tmp_path / "trial_3").mkdir()
    assert list(read_trials(tmp_path)) == ["0", "2", "10"]


def test_half_written_record_is_not_read(tmp_path: Path) -> None:
    make_record(0.5).save(tmp_path / "trial_0")
    (tmp_path / "trial_0" / "record.json.partial").write_text('{"values": {')
    assert read_trials(tmp_path)["0"].curve == [{"val_map@3": 0.5}]
    assert json.loads((tmp_path / "trial_0" / "record.json").read_text())["status"] == "finished"
