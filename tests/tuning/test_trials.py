import json
import math
from pathlib import Path

import pytest

from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import RunError
from tfrs_fashion.tuning.trials import HopelessTrialError, TrialRecord, Watch, is_hopeless, read_trials

OBJECTIVE = Objective("map@3")


def make_record(*values: float, status: str = "finished") -> TrialRecord:
    record = TrialRecord(values={"depth": 3}, curve=[{"val_map@3": value} for value in values])
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
def test_a_trial_below_the_median_of_the_others_is_hopeless(curve: list[float], direction: str, expected: bool) -> None:
    assert is_hopeless(curve, OTHERS, direction=direction, min_trials=3) is expected


def test_with_few_trials_none_is_hopeless() -> None:
    assert not is_hopeless([0.0], OTHERS, direction="max", min_trials=4)


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    assert make_record(0.1, 0.4, 0.4, 0.2).best(OBJECTIVE) == (2, 0.4)
    assert make_record(0.3, 0.1, 0.2).best(Objective("map@3", "min")) == (2, 0.1)


def test_a_record_is_kept_after_every_epoch(tmp_path: Path) -> None:
    record = TrialRecord(values={"dims": [8, 4], "name": "Größe"}, attempts=1)
    watch = Watch(tmp_path, "0", record, objective=OBJECTIVE, min_trials=None)
    for number, value in enumerate((0.1, 0.2), start=1):
        watch({"val_map@3": value})
        (found,) = read_trials(tmp_path).values()
        assert found.curve == [{"val_map@3": value} for value in (0.1, 0.2)][:number]
    assert found.values == {"dims": [8, 4], "name": "Größe"}
    assert found.status == "running"


def test_a_hopeless_trial_is_ended_by_the_records_of_finished_ones(tmp_path: Path) -> None:
    for name, values in (("0", (0.4,)), ("1", (0.5,))):
        make_record(*values).save(tmp_path / f"trial_{name}")
    make_record(0.9, status="failed").save(tmp_path / "trial_2")
    make_record(0.9, status="running").save(tmp_path / "trial_3")
    watch = Watch(tmp_path, "4", TrialRecord(values={}), objective=OBJECTIVE, min_trials=2)
    # The median of those two alone is .45.
    watch({"val_map@3": 0.46})
    watch = Watch(tmp_path, "5", TrialRecord(values={}), objective=OBJECTIVE, min_trials=2)
    with pytest.raises(HopelessTrialError):
        watch({"val_map@3": 0.44})


def test_after_its_last_epoch_a_trial_is_finished_and_not_ended_early(tmp_path: Path) -> None:
    for number in range(2):
        make_record(0.5, 0.6).save(tmp_path / f"trial_{number}")
    watch = Watch(tmp_path, "2", TrialRecord(values={}), objective=OBJECTIVE, min_trials=2, epochs=1)
    watch({"val_map@3": 0.1})


def test_trials_of_other_budgets_do_not_count(tmp_path: Path) -> None:
    for number in range(3):
        short = make_record(0.9)
        short.budget = 1
        short.save(tmp_path / f"trial_{number}")
    record = TrialRecord(values={}, budget=9)
    watch = Watch(tmp_path, "3", record, objective=OBJECTIVE, min_trials=2)
    watch({"val_map@3": 0.1})
    assert read_trials(tmp_path)["3"].curve == [{"val_map@3": 0.1}]


def test_an_objective_that_is_no_number_fails(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "0", TrialRecord(values={}), objective=OBJECTIVE, min_trials=None)
    watch({"val_map@3": 0.5})
    with pytest.raises(RunError, match=r"map@3 is nan after epoch 2"):
        watch({"val_map@3": math.nan})


def test_trials_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make_record(number / 10).save(tmp_path / f"trial_{number}")
    (tmp_path / "trial_3").mkdir()
    assert list(read_trials(tmp_path)) == ["0", "2", "10"]


def test_a_half_written_record_is_never_read(tmp_path: Path) -> None:
    make_record(0.5).save(tmp_path / "trial_0")
    (tmp_path / "trial_0" / "record.json.partial").write_text('{"values": {')
    assert read_trials(tmp_path)["0"].curve == [{"val_map@3": 0.5}]
    assert json.loads((tmp_path / "trial_0" / "record.json").read_text())["status"] == "finished"
