"""Records as runs of MLflow: each once, whole, and without a word to its makers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.experiments.test_log import invoke, keep
from tfrs_fashion.experiments import mlflow as mlflow_export
from tfrs_fashion.experiments.log import read_experiments
from tfrs_fashion.experiments.mlflow import export_experiments
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database of MLflow; what it calls artifacts goes below the working directory."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def mlflow_runs(store: str, pipeline: str) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=store)
    number = client.get_experiment_by_name(pipeline).experiment_id
    return sorted(client.search_runs([number]), key=lambda run: run.info.run_name)


def test_records_become_runs_of_mlflow(tmp_path: Path, folder: Path, config: PipelineConfig, store: str) -> None:
    first = keep(tmp_path / "größe", config)
    result = invoke("mlflow", store, "--experiments", str(folder))
    assert result.stdout == "1 run(s) written, 0 already there\n"
    (run,) = mlflow_runs(store, "tiny")
    (record,) = read_experiments(folder)
    assert (run.info.run_name, run.info.status) == (first, "FINISHED")
    assert run.info.start_time == int(record.time.timestamp() * 1000)
    assert run.data.params["seed"] == str(config.seed)
    assert run.data.params["features.categorical"] == json.dumps(record.config["features"]["categorical"])
    assert run.data.metrics == {
        **{f"gru/map_at_12{edge}": value for edge, value in (("", 0.5), ("_low", 0.0), ("_high", 1.0))},
        **{f"two_tower/map_at_12{edge}": value for edge, value in (("", 0.25), ("_low", 0.0), ("_high", 1.0))},
        "seconds/tables": 1.5,
        "seconds/models/gru": 60.0,
    }
    assert run.data.tags["tfrs_fashion.run_folder"] == "größe"
    assert run.data.tags["tfrs_fashion.purchases_fingerprint"] == "p" * 64
    assert run.data.tags.get("mlflow.source.git.commit") == record.git_commit
    loaded = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, tracking_uri=store))
    assert json.loads((loaded / "experiment.json").read_text(encoding="utf-8"))["figures"] == record.figures
    assert load_config(loaded / "config.toml") == config


def test_mlflow_is_given_each_record_once(
    tmp_path: Path, folder: Path, config: PipelineConfig, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        keep(tmp_path / f"run_{number}", config)
    write = mlflow_export._write_run

    def die(client: Any, *told: Any, **also: Any) -> None:
        if len(written) == 1:
            client.set_terminated = lambda *_of, **_told: sys.exit()  # before it is finished
        write(client, *told, **also)
        written.append(told)

    written: list[Any] = []
    monkeypatch.setattr(mlflow_export, "_write_run", die)
    with pytest.raises(SystemExit):
        export_experiments(folder, store)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert sorted(run.info.status for run in mlflow_runs(store, "tiny")) == ["FINISHED", "RUNNING"]
    assert export_experiments(folder, store) == (2, 1)
    names = [run.info.run_name for run in mlflow_runs(store, "tiny")]
    assert names == sorted(experiment.id for experiment in read_experiments(folder))
    assert export_experiments(folder, store) == (0, 3)


@pytest.mark.parametrize("uri", ["nonsense:x: y", "./mlruns"])
def test_mlflow_refuses_in_a_line(tmp_path: Path, folder: Path, config: PipelineConfig, store: str, uri: str) -> None:
    keep(tmp_path / "run", config)
    result = invoke("mlflow", uri, "--experiments", str(folder))
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert line.startswith(f"error: {uri}: ")
    assert line.endswith(". 0 record(s) were written, 0 were there, and 1 are left; the same command writes these.")


@pytest.mark.parametrize("uri", ["sqlite:///no_folder/mlflow.db", "nosuchdriver://shop:secret@db/mlflow"])
def test_a_database_that_cannot_be_opened_is_bad_input(
    tmp_path: Path, folder: Path, config: PipelineConfig, store: str, uri: str
) -> None:
    keep(tmp_path / "run", config)
    (tmp_path / "no_folder").write_text("a file")
    # A database that does not answer is asked ten times, with pauses that grow.
    patient = "mlflow.store.db.utils.time.sleep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patient, lambda _seconds: None)
        with pytest.raises(InputError, match="0 record") as found:
            export_experiments(folder, uri)
    assert "secret" not in str(found.value)


def test_a_deleted_experiment_is_not_written_to(
    tmp_path: Path, folder: Path, config: PipelineConfig, store: str
) -> None:
    keep(tmp_path / "run", config)
    client = mlflow.MlflowClient(tracking_uri=store)
    client.delete_experiment(client.create_experiment("tiny"))
    with pytest.raises(InputError, match=r"0 record.* 1 are left"):
        export_experiments(folder, store)


def test_without_mlflow_its_extra_is_named(
    tmp_path: Path, folder: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "run", config)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'tfrs-fashion\[mlflow\]'"):
        export_experiments(folder, "sqlite:///none.db")


def test_nothing_is_told_of_the_use_of_mlflow(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    keep(tmp_path / "run", config)
    # What the package finds when it is first imported, by which it decides.
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tfrs_fashion.experiments.mlflow import export_experiments\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mlflow': print(os.environ.get('MLFLOW_DISABLE_TELEMETRY')); sys.exit()\n"
        "sys.meta_path.insert(0, Finder())\n"
        "export_experiments(Path(sys.argv[1]), 'sqlite:///none.db')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    answer = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.stdout, answer.stderr) == ("true\n", "")
