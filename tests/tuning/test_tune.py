"""Whole searches on the tiny pipeline."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from rich.console import Console

from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.settings.file import read_setting
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.tuning.search import Search, TrialWorkspace
from tfrs_fashion.tuning.trials import TrialRecord, read_trials
from tfrs_fashion.tuning.tune import tune

PIPELINE = Path(__file__).parent.parent.parent / "pipelines" / "tiny.toml"
ALS = (
    "tune.recommender=als",
    'tune.space={"generators.als.factors"={type="int",low=2,high=16},'
    '"generators.als.alpha"={type="float",low=1.0,high=40.0,log=true}}',
)
GRU = (
    "tune.recommender=gru",
    'tune.space={"generators.gru.learning_rate"={type="float",low=0.0001,high=0.1,log=true},'
    '"generators.gru.dropout"={type="choice",values=[0.0,0.25,0.4]}}',
)


def make_search(folder: Path, *overrides: str) -> Search:
    return Search(TrialWorkspace(load_config(PIPELINE, overrides), folder, console=Console(quiet=True)))


def run_search(folder: Path, *overrides: str, force: bool = False) -> Search:
    search = make_search(folder, *overrides)
    tune(search.workspace, source=PIPELINE, overrides=overrides, force=force)
    return search


def evaluate(search: Search, name: str) -> list[dict[str, float]]:
    """Evaluates the pipeline's own settings as a search does; returns the metrics of each epoch."""
    curve: list[dict[str, float]] = []
    search.workspace.judge_settings(name, objective=search.definition.objective, watch=curve.append)
    return curve


@pytest.fixture(scope="module")
def als(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A finished search over six settings of a factorisation; read only."""
    return run_search(tmp_path_factory.mktemp("als"), *ALS, "tune.max_trials=6")


@pytest.fixture
def folder(als: Search, tmp_path: Path) -> Path:
    """A run folder of its own with the same tables."""
    (tmp_path / "run").mkdir()
    for name in ("tables", "timelines"):
        (tmp_path / "run" / name).symlink_to(als.workspace.folder / name)
    return tmp_path / "run"


def test_first_trial_is_evaluated_as_train_chooses(als: Search) -> None:
    records, config = read_trials(als.folder), als.workspace.config
    assert list(records) == [str(number) for number in range(6)]
    assert records["0"].values == {name: read_setting(config, name) for name in config.tune.space}
    assert records["0"].curve == evaluate(als, "als")
    assert {record.status for record in records.values()} == {"finished"}
    best = max(records.values(), key=lambda record: record.curve[0]["val_map@12"])
    document = json.loads((als.folder / "leaderboard" / "leaderboard.json").read_text())
    assert records[document["best"]].values == best.values
    assert any(message.startswith("best of 6 trials: map@12") for message in als.workspace.messages)


def test_best_pipeline_file_is_read_by_a_run_of_the_same_folder(als: Search) -> None:
    document = json.loads((als.folder / "leaderboard" / "leaderboard.json").read_text())
    best = load_config(als.folder / "leaderboard" / "best.toml")
    (values,) = [trial["values"] for trial in document["trials"] if trial["name"] == document["best"]]
    assert {name: read_setting(best, name) for name in values} == values
    assert best.name == "tiny"
    run = Run(config=best, folder=als.workspace.folder, console=Console(quiet=True))
    assert run._prepared == als.workspace._prepared


def test_finished_search_repeats_no_trial(als: Search) -> None:
    before = {path: path.stat().st_mtime_ns for path in als.folder.glob("trial_*/record.json")}
    run_search(als.workspace.folder, *ALS, "tune.max_trials=6")
    assert {path: path.stat().st_mtime_ns for path in als.folder.glob("trial_*/record.json")} == before


def test_different_search_in_the_same_folder_is_refused(als: Search) -> None:
    with pytest.raises(
        InputError, match=r"tune/als: holds another search: the search \(\[tune\]\) differ.*--run-dir, or .*--force"
    ):
        run_search(als.workspace.folder, *ALS, "tune.objective=recall@12")
    with pytest.raises(InputError, match="another search: the settings of als differ"):
        run_search(als.workspace.folder, *ALS, "generators.als.iterations=6")


def test_worker_of_a_different_search_is_refused(als: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "9"), ("TUNER_ID", "worker0")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    monkeypatch.setattr("tfrs_fashion.tuning.tune.wait_for_chief", lambda _show: None)
    with pytest.raises(InputError, match=r"another search: the settings of als differ.*A worker needs the chief's"):
        run_search(als.workspace.folder, *ALS, "generators.als.iterations=6")


def test_search_by_other_code_is_refused(als: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfrs_fashion.tuning.tune.code_fingerprint", lambda: "another version")
    with pytest.raises(InputError, match="the code of the package differ"):
        run_search(als.workspace.folder, *ALS)


def test_objective_may_be_any_metric_of_the_report(als: Search) -> None:
    for objective, direction in (
        ("coverage@12", "min"),
        ("recall@50", "max"),
        ("map@12_new", "max"),
        ("ndcg@5", "max"),
    ):
        search = make_search(als.workspace.folder, *ALS, f"tune.objective={objective}", f"tune.direction={direction}")
        (metrics,) = evaluate(search, "als")
        value = metrics[f"val_{objective}"]
        assert 0 < value <= 1
        first = next(iter(metrics.items()))
        assert first == ((f"val_{objective}", value) if direction == "max" else (f"val_minus_{objective}", -value))
        assert 0 < metrics["val_map@12"] < metrics["val_recall@12"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tune.space={}",), "tune.space: nothing to search"),
        (("tune.recommender=als2",), "tune.recommender: unknown recommender `als2`"),
        (
            ('tune.space={"two_tower.epoch"={type="int",low=1,high=2}}',),
            "unknown setting `two_tower.epoch`; did you mean `two_tower.epochs`?",
        ),
        (
            ('tune.space={"split.test_days"={type="int",low=1,high=9}}',),
            "tune.space: `split.test_days` cannot be searched",
        ),
        (
            ('tune.space={"features.profile"={type="choice",values=[["age_band"],["status"]]}}',),
            "tune.space: `features.profile` cannot be searched",
        ),
        (
            ('tune.space={"two_tower.embedding_dim"={type="int",low=0,high=32}}',),
            "two_tower.embedding_dim = 0: `two_tower.embedding_dim`: expected",
        ),
        (
            ('tune.space={"two_tower.embedding_dim"={type="int",low=32,high=64}}',),
            "tune.space.two_tower.embedding_dim: the pipeline's own value is 16, which is not between 32 and 64",
        ),
        (
            ("tune.recommender=repurchase", 'tune.space={"generators.repurchase.days"={type="int",low=0,high=9}}', "tune.algorithm=hyperband"),
            '"hyperband" gives trials epochs, and `repurchase` has none',
        ),
        (
            ('tune.space={"generators.als.factors"={type="int",low=2,high=16}}',),
            "`generators.als.factors` changes nothing of `two_tower`",
        ),
        (
            ('tune.space={"two_tower.embedding_dim"={type="float",low=8,high=32}}',),
            "`two_tower.embedding_dim`: expected a whole number",
        ),
        (("tune.objective=auc", "evaluation.full_ranking_customers=0", "tune.recommender=als", ALS[1]), "or set `evaluation.full_ranking_customers`"),
        (("tune.algorithm=hyperband", "two_tower.epochs=2"), "two_tower.epochs: 2, and Hyperband divides it by 3"),
        (
            ("tune.algorithm=hyperband", 'tune.space={"two_tower.epochs"={type="int",low=1,high=9}}'),
            "`two_tower.epochs` is what Hyperband gives its trials",
        ),
    ],
)  # fmt: skip
def test_invalid_search_is_refused_before_anything_is_written(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        run_search(tmp_path / "run", *overrides)
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_inverted_range_is_refused_by_the_pipeline_file() -> None:
    with pytest.raises(InputError, match=r"`low` is 9 and `high` is 1; expected `low` below `high`"):
        load_config(PIPELINE, ['tune.space={"two_tower.epochs"={type="int",low=9,high=1}}'])


def test_objective_that_no_report_has_is_refused_before_the_first_trial(als: Search) -> None:
    with pytest.raises(InputError, match=r"reports have no figure `coverag@12`; did you mean `coverage@12`\?"):
        run_search(als.workspace.folder, *ALS, "tune.objective=coverag@12", force=True)
    assert len(read_trials(als.folder)) == 6


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | BaseException]:
    """The objective of trials by their numbers, in place of a fit: .25 unless changed; errors are raised after one epoch."""
    values: dict[str, float | BaseException] = {}

    def evaluate_settings(_workspace: Any, _name: str, *, watch: Any, **_kwargs: Any) -> None:
        value = values.get(watch.record.name, 0.25)
        if isinstance(value, BaseException):
            watch({"val_map@12": 0.75})
            raise value
        for _epoch in range(3):
            watch({"val_map@12": value})

    monkeypatch.setattr("tfrs_fashion.tuning.search.evaluate_settings", evaluate_settings)
    return values


def test_failed_trials_are_shown_with_their_error_and_are_never_the_best(
    folder: Path, outcomes: dict[str, float | BaseException]
) -> None:
    outcomes |= {"0": 0.5, "1": float("nan"), "3": MemoryError("12 GB")}
    search = run_search(folder, *GRU, "tune.max_trials=5", "tune.min_trials=2")
    records = read_trials(search.folder)
    assert [record.status for record in records.values()] == ["finished", "failed", "finished", "failed", "pruned"]
    assert records["1"].error == "RunError: map@12 is nan after epoch 1"
    assert records["3"].error == "MemoryError: 12 GB"
    assert "MemoryError" in (search.folder / "trial_3" / "error.txt").read_text()
    # Trials 0 and 2 reached .5 and .25 at once, of which the median is .375.
    assert len(records["4"].curve) == 1
    page = (search.folder / "leaderboard" / "leaderboard.html").read_text()
    assert "MemoryError: 12 GB" in page
    table = pd.read_parquet(search.folder / "leaderboard" / "trials.parquet")
    assert table.set_index("name")["objective"].isna().tolist() == [False, True, False, True, False]
    assert any("trial 0" in message and "0.5000" in message for message in search.workspace.messages)


@pytest.mark.usefixtures("outcomes")
def test_trial_fails_if_its_process_was_killed_max_kills_times(folder: Path) -> None:
    search = make_search(folder, *GRU, "tune.max_kills=2")
    TrialRecord("0", {}, attempts=1).save(search.folder / "trial_0")
    search.run_trial("0", {}, None)
    assert read_trials(search.folder)["0"].status == "finished"
    TrialRecord("0", {}, attempts=2).save(search.folder / "trial_0")
    with pytest.raises(RunError, match=r"its process was killed 2 times while it ran: out of memory, perhaps"):
        search.run_trial("0", {}, None)
    assert read_trials(search.folder)["0"].status == "failed"


def test_evaluated_trial_is_not_fitted_again_if_the_oracle_did_not_know(
    folder: Path, outcomes: dict[str, float | BaseException]
) -> None:
    search, values = make_search(folder, *GRU), {"generators.gru.dropout": 0.25}
    outcomes["0"] = 0.5
    assert search.run_trial("0", values, None) == 0.5
    outcomes["0"] = AssertionError("fitted again")
    assert search.run_trial("0", values, None) == 0.5


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("left", ["oracle.json", "trial_0"])
def test_leftovers_of_an_unknown_search_are_refused(folder: Path, left: str) -> None:
    search = make_search(folder, *GRU)
    (search.folder / left).mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds another search: .*the data"):
        run_search(folder, *GRU)
    run_search(folder, *GRU, force=True)
    assert len(read_trials(search.folder)) > 3


def test_interrupt_does_not_count_as_an_attempt(folder: Path, outcomes: dict[str, float | BaseException]) -> None:
    search = make_search(folder, *GRU)
    outcomes["0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        search.run_trial("0", {}, None)
    assert read_trials(search.folder)["0"].attempts == 0


def test_failures_in_a_row_end_the_search_with_the_last_error(
    folder: Path, outcomes: dict[str, float | BaseException]
) -> None:
    outcomes |= {str(number): ValueError(f"trial {number} is no good") for number in range(9)}
    with pytest.raises(RunError, match=r"none of 3 trial\(s\) succeeded; the last one: ValueError: trial 2 is no good"):
        run_search(folder, *GRU, "tune.max_trials=9")


def test_hyperband_trials_are_fitted_for_the_epochs_that_they_were_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_settings(workspace: Any, name: str, *, watch: Any, **_kwargs: Any) -> None:
        settings = workspace.config.generators[name]
        for epoch in range(settings.epochs):
            watch({"val_map@12": settings.learning_rate * (epoch + 1)})

    monkeypatch.setattr("tfrs_fashion.tuning.search.evaluate_settings", evaluate_settings)
    space = 'tune.space={"generators.gru.learning_rate"={type="float",low=0.0001,high=0.1,log=true}}'
    settings = ("tune.algorithm=hyperband", "tune.prune=false", "generators.gru.epochs=3")
    search = run_search(folder, GRU[0], space, *settings)
    records = read_trials(search.folder)
    assert [len(record.curve) for record in records.values()] == [record.budget for record in records.values()]
    assert {record.budget for record in records.values()} == {1, 3}
    best = load_config(search.folder / "leaderboard" / "best.toml")
    # The best has the highest rate, and all of the epochs.
    assert read_setting(best, "generators.gru.epochs") == 3
    whole = [record for record in records.values() if record.budget == 3]
    rates = [record.values["generators.gru.learning_rate"] for record in whole]
    assert read_setting(best, "generators.gru.learning_rate") == max(rates)


def test_ranker_of_two_stages_is_evaluated_on_the_week_that_train_chooses_by(folder: Path) -> None:
    settings = (
        "tune.recommender=two_stage",
        "tune.max_trials=2",
        "recommenders=['popularity_7d','repurchase','two_stage']",
        "recommend.recommender=two_stage",
        "blend.generators=['popularity_7d','repurchase','als']",
        "blend.epochs=1",
        "generators.als.factors=4",
        "generators.two_stage.weeks=2",
        "generators.two_stage.blend_weeks=1",
        "generators.two_stage.similar=['als']",
        "generators.two_stage.network.epochs=2",
    )
    search = run_search(
        folder, *settings, 'tune.space={"generators.two_stage.network.num_cross"={type="int",low=1,high=3}}'
    )
    records, workspace = read_trials(search.folder), search.workspace
    assert {record.status for record in records.values()} <= {"finished", "pruned"}
    chosen = workspace.choose_two_stage("two_stage", workspace.splits["test"])
    best = max(metrics["val_map@12"] for metrics in records["0"].curve)
    assert chosen["figures"]["network"]["val_map@12"] == pytest.approx(best)
    # What a trial's settings leave as it is, is the run's own; what they change is kept apart from it.
    assert {path.parent for path in search.folder.glob("pools/*")} == set()
    training = workspace.ranker_training("two_stage", workspace.splits["test"])
    assert len(training) == 2
    space = 'tune.space={"blend.num_candidates"={type="choice",values=[200,40]}}'
    other = run_search(folder, *settings, space, force=True)
    assert len({path.name[:10] for path in other.folder.glob("pools/*")}) == 3
    assert [week.features.shape for week in workspace.ranker_training("two_stage", workspace.splits["test"])] == [
        week.features.shape for week in training
    ]


def test_several_rankers_or_an_unknown_objective_of_rankers_are_refused(tmp_path: Path) -> None:
    settings = ("tune.recommender=two_stage", 'tune.space={"generators.two_stage.weeks"={type="int",low=3,high=5}}')
    rankers = "generators.two_stage.rankers=['network','lightgbm']"
    with pytest.raises(InputError, match="2 rankers are fitted separately"):
        make_search(tmp_path, *settings, rankers).definition.check()
    with pytest.raises(InputError, match=r"`coverage@12` is not measured for rankers; choose one of map@12, recall@12"):
        make_search(tmp_path, *settings, "tune.objective=coverage@12").definition.check()


def wait_for(condition: Callable[[], Any], *, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing within {seconds} s")


def test_two_workers_share_a_search_whichever_process_is_killed(folder: Path, tmp_path: Path) -> None:
    # A model with epochs whose trials begin fast.
    settings = (
        "tune.recommender=base_two_tower",
        'tune.space={"generators.base_two_tower.learning_rate"={type="float",low=0.0001,high=0.1,log=true},'
        '"generators.base_two_tower.embedding_dim"={type="choice",values=[4,8,64]}}',
        "tune.max_trials=4",
        "tune.prune=false",
        # The trial that is killed with its worker may be killed with the whole search as well.
        "tune.max_kills=3",
        "tensorboard.enabled=false",
    )
    arguments = ["tune", str(PIPELINE), "--run-dir", str(folder)]
    arguments += [part for override in settings for part in ("--set", override)]
    command = [sys.executable, "-m", "tfrs_fashion.cli", *arguments, "--workers", "2"]
    search = folder / "tune" / "base_two_tower"

    def running() -> list[str]:
        return [name for name, record in read_trials(search).items() if record.status == "running" and record.curve]

    def finished() -> list[str]:
        return [name for name, record in read_trials(search).items() if record.status == "finished"]

    def both_at_work() -> bool:
        assert chief.poll() is None, (tmp_path / "log").read_text()
        return len(running()) == 2

    with (tmp_path / "log").open("w") as log:
        chief = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            # Both are at work, on different trials.
            wait_for(both_at_work)
            workers = psutil.Process(chief.pid).children()
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)
            # The worker in its place repeats its trial.
            wait_for(lambda: any(record.attempts == 2 for record in read_trials(search).values()))
            wait_for(finished)
            wait_for(running)
            workers = psutil.Process(chief.pid).children()
        finally:
            chief.kill()
            chief.wait()
        wait_for(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers), seconds=20)
    done = {name: (search / f"trial_{name}" / "record.json").read_bytes() for name in finished()}
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Only errors go to stderr, not even what an extension prints when the process ends.
    assert ended.stderr == ""
    assert f"resumes: {len(done)} trial(s) of {search} are kept" in ended.stdout
    records = read_trials(search)
    assert len(records) == 4
    assert {record.status for record in records.values()} == {"finished"}
    # No finished trial was lost or repeated, and nothing was tried twice under another name.
    assert {name: (search / f"trial_{name}" / "record.json").read_bytes() for name in done} == done
    assert len({json.dumps(record.values) for record in records.values()}) == 4


def test_settings_of_a_search_do_not_change_the_fingerprints_of_a_run(tmp_path: Path) -> None:
    plain = Run(config=load_config(PIPELINE), folder=tmp_path)
    searched = Run(config=load_config(PIPELINE, [*ALS, "tensorboard.enabled=false"]), folder=tmp_path)
    for name in plain.config.fitted:
        assert plain._trained(name) == searched._trained(name)
        assert plain._exported(name) == searched._exported(name)
