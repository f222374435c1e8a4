"""The search over a run's settings, on the tiny pipeline."""

import json
import signal
import subprocess
import sys
import time
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
from tfrs_fashion.tuning.plan import SearchPlan
from tfrs_fashion.tuning.trials import TrialRecord, read_trials
from tfrs_fashion.tuning.tune import Tune

PIPELINE = Path(__file__).parent.parent.parent / "pipelines" / "tiny.toml"
ALS = (
    "tune.recommender=als",
    'tune.space={"generators.als.factors"={type="int",low=2,high=16},'
    '"generators.als.alpha"={type="float",low=1.0,high=40.0,log=true}}',
)


def make_tune(folder: Path, *overrides: str) -> Tune:
    config = load_config(PIPELINE, overrides)
    return Tune(config=config, folder=folder, console=Console(quiet=True), source=PIPELINE, overrides=overrides)


@pytest.fixture(scope="module")
def als(tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """A finished search over six settings of a factorisation; read only."""
    tune = make_tune(tmp_path_factory.mktemp("als"), *ALS, "tune.max_trials=6")
    tune.tune()
    return tune


def test_every_trial_is_judged_as_a_run_chooses(als: Tune) -> None:
    records = read_trials(als.search_folder)
    assert list(records) == [str(number) for number in range(6)]
    assert records["0"].values == {name: read_setting(als.config, name) for name in als.config.tune.space}
    curves: list[dict[str, float]] = []
    als.judge_settings("als", objective=als.plan.objective, watch=curves.append)
    assert records["0"].curve == curves
    assert {record.status for record in records.values()} == {"finished"}
    best = max(records.values(), key=lambda record: record.curve[0]["val_map@12"])
    document = json.loads((als.search_folder / "leaderboard" / "leaderboard.json").read_text())
    assert records[document["best"]].values == best.values
    assert any(message.startswith("best of 6 trials: map@12") for message in als.messages)


def test_a_run_takes_the_best_settings_as_they_are(als: Tune) -> None:
    place = als.search_folder / "leaderboard"
    document = json.loads((place / "leaderboard.json").read_text())
    found = load_config(place / "best.toml")
    (values,) = [trial["values"] for trial in document["trials"] if trial["name"] == document["best"]]
    assert {name: read_setting(found, name) for name in values} == values
    assert found.name == "tiny"
    run = Run(config=found, folder=als.folder, console=Console(quiet=True))
    assert run._prepared == als._prepared


def test_a_finished_search_runs_no_trial_again(als: Tune) -> None:
    before = {path: path.stat().st_mtime_ns for path in als.search_folder.glob("trial_*/record.json")}
    make_tune(als.folder, *als.overrides).tune()
    assert {path: path.stat().st_mtime_ns for path in als.search_folder.glob("trial_*/record.json")} == before


def test_another_search_in_the_same_folder_is_refused(als: Tune) -> None:
    with pytest.raises(
        InputError, match=r"tune/als: holds another search: the search \(\[tune\]\) differ.*--run-dir, or .*--force"
    ):
        make_tune(als.folder, *als.overrides, "tune.objective=recall@12").tune()
    with pytest.raises(InputError, match="another search: the settings of als differ"):
        make_tune(als.folder, *als.overrides, "generators.als.iterations=6").tune()


def test_a_worker_of_another_search_is_refused(als: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "9"), ("TUNER_ID", "worker0")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    monkeypatch.setattr("tfrs_fashion.tuning.tune.wait_for_chief", lambda _tell: None)
    with pytest.raises(InputError, match=r"another search: the settings of als differ.*A worker has the chief's"):
        make_tune(als.folder, *als.overrides, "generators.als.iterations=6").tune()


def test_a_search_goes_on_by_the_same_code_alone(als: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfrs_fashion.tuning.tune.code_fingerprint", lambda: "another version")
    with pytest.raises(InputError, match="the code of the package differ"):
        make_tune(als.folder, *als.overrides).tune()


def test_any_figure_of_the_report_may_be_what_is_chosen_by(als: Tune) -> None:
    for objective, direction in (
        ("coverage@12", "min"),
        ("recall@50", "max"),
        ("map@12_new", "max"),
        ("ndcg@5", "max"),
    ):
        tune = make_tune(als.folder, *ALS, f"tune.objective={objective}", f"tune.direction={direction}")
        figures: list[dict[str, float]] = []
        tune.judge_settings("als", objective=tune.plan.objective, watch=figures.append)
        (found,) = figures
        value = found[f"val_{objective}"]
        assert 0 < value <= 1
        first = next(iter(found.items()))
        assert first == ((f"val_{objective}", value) if direction == "max" else (f"val_minus_{objective}", -value))
        assert 0 < found["val_map@12"] < found["val_recall@12"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tune.space={}",), "tune.space: nothing to search"),
        (("tune.recommender=als2",), "tune.recommender: nothing makes `als2`"),
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
def test_a_search_that_makes_no_sense_is_refused_before_anything_is_done(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        make_tune(tmp_path / "run", *overrides).tune()
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_inverted_range_is_refused_by_the_pipeline_file() -> None:
    with pytest.raises(InputError, match=r"`low` is 9 and `high` is 1; expected `low` below `high`"):
        load_config(PIPELINE, ['tune.space={"two_tower.epochs"={type="int",low=9,high=1}}'])


def test_an_objective_that_no_report_holds_is_refused_before_the_first_trial(als: Tune) -> None:
    with pytest.raises(InputError, match=r"reports have no figure `coverag@12`; did you mean `coverage@12`\?"):
        make_tune(als.folder, *ALS, "tune.objective=coverag@12").tune(force=True)
    assert len(read_trials(als.search_folder)) == 6


class Pretended(Tune):
    """A search whose trials do as they are told, instead of fitting anything, and have epochs."""

    @property
    def plan(self) -> Any:  # type: ignore[override]
        plan = SearchPlan(self.config)
        plan.budget = "two_tower.epochs"
        return plan

    def _fit_trial(self, trial_id: str, values: dict[str, Any], budget: int | None, watch: Any) -> None:
        value = {"0": 0.5, "1": float("nan"), "3": MemoryError("12 GB")}.get(trial_id, 0.25)
        if isinstance(value, Exception):
            watch({"val_map@12": 0.75})
            raise value
        for _epoch in range(3):
            watch({"val_map@12": value})


def pretend(als: Tune, folder: Path, *overrides: str) -> Pretended:
    config = load_config(PIPELINE, (*ALS, *overrides))
    told: dict[str, Any] = {"source": PIPELINE, "overrides": (*ALS, *overrides), "console": Console(quiet=True)}
    return Pretended(config=config, folder=prepared(als, folder), **told)


def prepared(als: Tune, folder: Path) -> Path:
    """A run folder of its own with the same tables."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    for name in ("tables", "timelines"):
        (folder / "run" / name).symlink_to(als.folder / name)
    return folder / "run"


def test_failed_trials_are_shown_with_their_error_and_are_never_the_best(als: Tune, tmp_path: Path) -> None:
    tune = pretend(als, tmp_path, "tune.max_trials=5", "tune.min_trials=2")
    tune.tune()
    records = read_trials(tune.search_folder)
    assert [record.status for record in records.values()] == ["finished", "failed", "finished", "failed", "hopeless"]
    assert records["1"].error == "RunError: map@12 is nan after epoch 1"
    assert records["3"].error == "MemoryError: 12 GB"
    assert "MemoryError" in (tune.search_folder / "trial_3" / "error.txt").read_text()
    # Trials 0 and 2 reached .5 and .25 at once, of which the median is .375.
    assert len(records["4"].curve) == 1
    page = (tune.search_folder / "leaderboard" / "leaderboard.html").read_text()
    assert "MemoryError: 12 GB" in page
    frame = pd.read_parquet(tune.search_folder / "leaderboard" / "trials.parquet")
    assert frame.set_index("name")["objective"].isna().tolist() == [False, True, False, True, False]
    assert any("trial 0" in message and "0.5000" in message for message in tune.messages)


def test_a_trial_whose_process_was_killed_twice_is_given_up(als: Tune, tmp_path: Path) -> None:
    tune = pretend(als, tmp_path, "tune.max_trials=2", "tune.max_kills=2")
    TrialRecord(values={}, attempts=1).save(tune.search_folder / "trial_0")
    tune._run_trial("0", {}, None)
    assert read_trials(tune.search_folder)["0"].status == "finished"
    TrialRecord(values={}, attempts=2).save(tune.search_folder / "trial_0")
    with pytest.raises(RunError, match=r"its process was killed 2 times while it ran: out of memory, perhaps"):
        tune._run_trial("0", {}, None)
    assert read_trials(tune.search_folder)["0"].status == "failed"


def test_a_trial_that_was_judged_is_not_fitted_again_because_the_search_did_not_know(
    als: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = pretend(als, tmp_path)
    assert tune._run_trial("0", {"rate": 1}, None) == 0.5
    monkeypatch.setattr(tune, "_fit_trial", lambda *_told: pytest.fail("fitted again"))
    assert tune._run_trial("0", {"rate": 1}, None) == 0.5


@pytest.mark.parametrize("left", ["oracle.json", "trial_0"])
def test_what_is_left_of_a_search_that_does_not_say_of_which_is_refused(als: Tune, tmp_path: Path, left: str) -> None:
    tune = pretend(als, tmp_path)
    tune.search_folder.mkdir(parents=True)
    (tune.search_folder / left).mkdir()
    with pytest.raises(InputError, match=r"holds another search: .*the data"):
        tune.tune()
    tune.tune(force=True)
    assert len(read_trials(tune.search_folder)) > 3


def test_an_interrupt_is_no_fault_of_the_trial(als: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = pretend(als, tmp_path)

    def interrupt(*_told: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "_fit_trial", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune._run_trial("0", {}, None)
    assert read_trials(tune.search_folder)["0"].attempts == 0


def test_failures_in_a_row_end_the_search_and_say_why(
    als: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = pretend(als, tmp_path, "tune.max_trials=9")

    def fail(trial_id: str, *_told: Any) -> None:
        raise ValueError(f"trial {trial_id} is no good")

    monkeypatch.setattr(tune, "_fit_trial", fail)
    with pytest.raises(RunError, match=r"none of 3 trial\(s\) succeeded; the last one: ValueError: trial 2 is no good"):
        tune.tune()


def test_hyperband_gives_trials_as_many_epochs_as_it_says(
    als: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(bench: Tune, name: str, *, watch: Any, **_told: Any) -> None:
        settings = bench.config.generators[name]
        for epoch in range(settings.epochs):  # type: ignore[union-attr]
            watch({"val_map@12": settings.learning_rate * (epoch + 1)})  # type: ignore[union-attr]

    monkeypatch.setattr(Tune, "judge_settings", judge)
    tune = make_tune(
        prepared(als, tmp_path),
        "tune.algorithm=hyperband",
        "tune.recommender=gru",
        "tune.stops_hopeless=false",
        "generators.gru.epochs=3",
        'tune.space={"generators.gru.learning_rate"={type="float",low=0.0001,high=0.1,log=true}}',
    )
    tune.tune()
    records = read_trials(tune.search_folder)
    assert [len(record.curve) for record in records.values()] == [record.budget for record in records.values()]
    assert {record.budget for record in records.values()} == {1, 3}
    best = load_config(tune.search_folder / "leaderboard" / "best.toml")
    # The best has the highest rate, and all of the epochs.
    assert read_setting(best, "generators.gru.epochs") == 3
    whole = [record for record in records.values() if record.budget == 3]
    rates = [record.values["generators.gru.learning_rate"] for record in whole]
    assert read_setting(best, "generators.gru.learning_rate") == max(rates)


def test_the_ranker_of_two_stages_is_judged_on_the_week_that_it_is_chosen_by(tmp_path: Path) -> None:
    tune = make_tune(
        tmp_path / "run",
        "tune.recommender=two_stage",
        "tune.max_trials=2",
        "recommenders=['popularity_7d','repurchase','two_stage']",
        "recommend.recommender=two_stage",
        "blend.generators=['popularity_7d','repurchase','als']",
        "blend.epochs=1",
        "generators.two_stage.weeks=2",
        "generators.two_stage.blend_weeks=1",
        "generators.two_stage.similar=['als']",
        "generators.two_stage.network.epochs=2",
        'tune.space={"generators.two_stage.network.num_cross"={type="int",low=1,high=3}}',
    )
    tune.tune()
    records = read_trials(tune.search_folder)
    assert {record.status for record in records.values()} <= {"finished", "hopeless"}
    chosen = tune.choose_two_stage("two_stage", tune.splits["test"])
    best = max(figures["val_map@12"] for figures in records["0"].curve)
    assert chosen["figures"]["network"]["val_map@12"] == pytest.approx(best)
    # What a trial's settings leave as it is, is that of the run; what they change is kept apart from it.
    assert {path.parent for path in tune.search_folder.glob("pools/*")} == set()
    training = tune.ranker_training("two_stage", tune.splits["test"])
    assert len(training) == 2
    other = make_tune(
        tmp_path / "run",
        *tune.overrides,
        "tune.max_trials=2",
        'tune.space={"blend.num_candidates"={type="choice",values=[200,40]}}',
    )
    other.tune(force=True)
    assert len({path.name[:10] for path in other.search_folder.glob("pools/*")}) == 3
    assert [found.features.shape for found in tune.ranker_training("two_stage", tune.splits["test"])] == [
        found.features.shape for found in training
    ]


def test_rankers_are_searched_one_at_a_time_and_by_what_is_known_of_them(tmp_path: Path) -> None:
    told = ("tune.recommender=two_stage", 'tune.space={"generators.two_stage.weeks"={type="int",low=3,high=5}}')
    with pytest.raises(InputError, match="2 rankers are fitted apart"):
        make_tune(tmp_path, *told, "generators.two_stage.rankers=['network','lightgbm']").plan.check()
    with pytest.raises(InputError, match=r"`coverage@12` is not known of a ranker; choose one of map@12, recall@12"):
        make_tune(tmp_path, *told, "tune.objective=coverage@12").plan.check()


SLOW = (
    "tune.recommender=gru",
    "tune.max_trials=5",
    "tune.stops_hopeless=false",
    # The one that is killed with its worker may be killed with the whole search as well.
    "tune.max_kills=3",
    "generators.gru.embedding_dim=8",
    "generators.gru.hidden_dim=8",
    "generators.gru.patience=99",
    "generators.gru.epochs=12",
    'tune.space={"generators.gru.learning_rate"={type="float",low=0.0001,high=0.1,log=true},'
    '"generators.gru.dropout"={type="choice",values=[0.0,0.25,0.4]}}',
)


def wait_for(what: Any, *, seconds: float = 240.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing within {seconds} s")


def test_two_workers_share_a_search_whichever_of_them_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["tune", str(PIPELINE), "--run-dir", str(folder)]
    arguments += [part for override in SLOW for part in ("--set", override)]
    command = [sys.executable, "-m", "tfrs_fashion.cli", *arguments]
    search = folder / "tune" / "gru"

    def running() -> list[str]:
        return [name for name, record in read_trials(search).items() if record.status == "running" and record.curve]

    def finished() -> list[str]:
        return [name for name, record in read_trials(search).items() if record.status == "finished"]

    def both_at_work() -> bool:
        assert chief.poll() is None, (tmp_path / "log").read_text()
        return len(running()) == 2

    with (tmp_path / "log").open("w") as log:
        chief = subprocess.Popen([*command, "--workers", "2"], stdout=log, stderr=log)
        try:
            # Both are at work, on different trials.
            wait_for(both_at_work)
            workers = psutil.Process(chief.pid).children()
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)
            # What it did is done again, by the worker in its place.
            wait_for(lambda: any(record.attempts == 2 for record in read_trials(search).values()))
            wait_for(finished)
            wait_for(running)
            workers = psutil.Process(chief.pid).children()
        finally:
            chief.kill()
            chief.wait()
        wait_for(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers), seconds=20)
    done = {name: (search / f"trial_{name}" / "record.json").read_bytes() for name in finished()}
    ended = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Nothing but errors goes there, not even what an extension has to say when the process ends.
    assert ended.stderr == ""
    assert f"goes on: {len(done)} trial(s) of {search} are kept" in ended.stdout
    records = read_trials(search)
    assert len(records) == 5
    assert {record.status for record in records.values()} == {"finished"}
    # Nothing that was finished was lost or repeated, and nothing was tried twice under another name.
    assert {name: (search / f"trial_{name}" / "record.json").read_bytes() for name in done} == done
    assert len({json.dumps(record.values) for record in records.values()}) == 5


def test_nothing_of_a_search_is_in_what_a_run_depends_on(als: Tune, tmp_path: Path) -> None:
    plain = Run(config=load_config(PIPELINE), folder=tmp_path)
    searched = Run(config=load_config(PIPELINE, [*ALS, "tensorboard.enabled=false"]), folder=tmp_path)
    for name in plain.config.fitted:
        assert plain._trained(name) == searched._trained(name)
        assert plain._exported(name) == searched._exported(name)
