"""Records of experiments: kept whole by many at once, found by id or folder, and compared."""

import datetime
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from tfrs_fashion.cli import app
from tfrs_fashion.experiments.log import (
    compare_experiments,
    experiments_folder,
    find_experiment,
    keep_record,
    read_experiments,
    read_log,
    write_record,
)
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig

if TYPE_CHECKING:
    from tfrs_fashion.run.run import Run

FINGERPRINTS = {"data": "d" * 64, "purchases": "p" * 64, "targets": "t" * 64}
SPLIT = {"kind": "window", "as_of": "2024-03-24T00:00:00", "end": None}
PAGE = (Path(__file__).parent.parent.parent / "docs" / "guide" / "experiments.md").read_text(encoding="utf-8")


def write_report(
    run_folder: Path, config: PipelineConfig, *, gru: float = 0.5, fingerprints: dict[str, str] = FINGERPRINTS
) -> Path:
    """What a run keeps beside its report: each of three customers has so much of `map@12`."""
    report = run_folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    customers = pd.DataFrame({"customer_id": ["Größe", "b", "c"], "gru": [gru] * 3, "two_tower": [0.25, 0.0, 0.5]})
    customers.to_parquet(report / "customers.parquet", index=False)
    figures = {
        name: {"map@12": {"value": float(customers[name].mean()), "low": 0.0, "high": 1.0}}
        for name in ("gru", "two_tower")
    }
    write_record(
        report,
        config=config,
        run_folder=run_folder,
        split=SPLIT,
        recommenders=figures,
        durations={"tables": 1.5, "models/gru": 60.0},
        fingerprints=fingerprints,
    )
    return report


def keep(run_folder: Path, config: PipelineConfig, **changes: Any) -> str:
    return keep_record(write_report(run_folder, config, **changes), run_folder.parent / "experiments")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_record_holds_what_the_report_was_made_from(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    before = datetime.datetime.now(datetime.UTC)
    name = keep(tmp_path / "größe", config)
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", name)
    (found,) = read_experiments(folder)
    assert (found.id, found.pipeline, found.run_folder, found.seed) == (name, "tiny", "größe", config.seed)
    assert before <= found.time <= datetime.datetime.now(datetime.UTC)
    assert found.config == json.loads(config.model_dump_json())
    assert found.split == SPLIT
    assert found.durations == {"tables": 1.5, "models/gru": 60.0}
    assert found.purchases_fingerprint == "p" * 64
    assert "numpy" in found.libraries
    assert len(found.code_fingerprint) == 64
    assert found.figures[1] == {"recommender": "two_tower", "metric": "map@12", "value": 0.25, "low": 0.0, "high": 1.0}
    # The settings run again.
    assert load_config(folder / name / "config.toml") == config
    kept = pd.read_parquet(folder / name / "customers.parquet")
    assert kept["customer_id"].tolist() == ["Größe", "b", "c"]


def test_the_settings_of_every_pipeline_run_again(root: Path, tmp_path: Path) -> None:
    for path in sorted((root / "pipelines").glob("*.toml")):
        pipeline = load_config(path)
        assert load_config(write_report(tmp_path / path.stem, pipeline) / "config.toml") == pipeline, path.name


def test_a_report_is_recorded_once(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    report = write_report(tmp_path / "run", config)
    assert keep_record(report, folder) == keep_record(report, folder)
    assert len(read_experiments(folder)) == 1
    # Written anew, it is another experiment, though nothing changed.
    keep(tmp_path / "run", config)
    assert len(read_experiments(folder)) == 2


def test_the_folder_of_a_record_that_was_damaged_or_lost_is_written_again(
    tmp_path: Path, folder: Path, config: PipelineConfig
) -> None:
    report = write_report(tmp_path / "run", config)
    name, other = keep_record(report, folder), keep(tmp_path / "other", config)
    place = folder / name
    for lose in ((place / "customers.parquet").unlink, lambda: shutil.rmtree(place)):
        lose()
        with pytest.raises(InputError, match="writes them again"):
            compare_experiments(folder, name, other)
        assert keep_record(report, folder) == name
        compare_experiments(folder, name, other)
    assert len(read_experiments(folder)) == 2


def test_a_lost_log_is_not_made_from_what_was_being_written(
    tmp_path: Path, folder: Path, config: PipelineConfig
) -> None:
    name = keep(tmp_path / "run", config)
    shutil.copytree(folder / name, folder / f".{name}x.partial")
    (folder / "experiments.parquet").unlink()
    assert [found.id for found in read_experiments(folder)] == [name]


def test_many_append_at_once(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    reports = [write_report(tmp_path / f"run_{number}", config) for number in range(12)]
    program = (
        "import sys; from pathlib import Path; from tfrs_fashion.experiments.log import keep_record\n"
        "sys.stdin.readline()\n"
        "for report in sys.argv[2:]: keep_record(Path(report), Path(sys.argv[1]))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), *map(str, reports[number::2])], stdin=subprocess.PIPE
        )
        for number in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    # Neither reading nor keeping a record loads TensorFlow.
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert sorted(found.run_folder for found in read_experiments(folder)) == sorted(
        report.parent.name for report in reports
    )
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


def test_killed_half_way_nothing_is_lost(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    first = keep(tmp_path / "a", config)
    report = write_report(tmp_path / "b", config)
    second = json.loads((report / "experiment.json").read_text())["id"]
    # Killed while the folder was written, and while the log was.
    (folder / f".{second}.partial").mkdir()
    (folder / f".{second}.partial" / "customers.parquet").write_bytes(b"half")
    (folder / ".experiments.parquet.partial").write_bytes(b"PAR1 half")
    assert [found.id for found in read_experiments(folder)] == [first]
    assert keep_record(report, folder) == second
    assert [found.id for found in read_experiments(folder)] == [first, second]
    assert not [path for path in folder.rglob("*") if "partial" in path.name]
    # Killed between the two, the folder is there and the row is not.
    third = write_report(tmp_path / "c", config)
    name = json.loads((third / "experiment.json").read_text())["id"]
    log = (folder / "experiments.parquet").read_bytes()
    keep_record(third, folder)
    (folder / "experiments.parquet").write_bytes(log)
    assert keep_record(third, folder) == name
    assert [found.id for found in read_experiments(folder)] == [first, second, name]


def test_a_failed_append_leaves_the_log_as_it_was(
    tmp_path: Path, folder: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "a", config)
    before = (folder / "experiments.parquet").read_bytes()

    def fail(_table: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    report = write_report(tmp_path / "b", config)
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", fail)
        with pytest.raises(OSError, match="No space left"):
            keep_record(report, folder)
    assert (folder / "experiments.parquet").read_bytes() == before
    assert not (folder / ".experiments.parquet.partial").exists()
    keep_record(report, folder)
    assert len(read_experiments(folder)) == 2


def test_a_damaged_log_is_named_and_left_alone(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    first = keep(tmp_path / "a", config)
    log = folder / "experiments.parquet"
    damaged = log.read_bytes()[:-20]
    log.write_bytes(damaged)
    report = write_report(tmp_path / "b", config)
    for read in (lambda: read_log(folder), lambda: keep_record(report, folder)):
        with pytest.raises(InputError, match=r"experiments\.parquet: cannot be read \(.*, and was left as it is"):
            read()
    assert log.read_bytes() == damaged
    # As the message says: moved away, it is written anew from what each record's folder holds.
    log.unlink()
    second = keep_record(report, folder)
    assert [found.id for found in read_experiments(folder)] == [first, second]
    assert log.is_file()


def test_a_table_that_is_no_log_is_refused_and_more_columns_are_kept(
    tmp_path: Path, folder: Path, config: PipelineConfig
) -> None:
    keep(tmp_path / "a", config)
    log = folder / "experiments.parquet"
    pd.read_parquet(log).assign(note="by hand").to_parquet(log, index=False)
    keep(tmp_path / "a", config)
    assert pd.read_parquet(log)["note"].tolist() == ["by hand", None]
    pd.read_parquet(log).drop(columns=["seed", "split"]).to_parquet(log, index=False)
    with pytest.raises(InputError, match="lacks `split`, `seed`, so it is no log of this version"):
        read_log(folder)


def test_the_log_lies_beside_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiments_folder(Path("runs/tiny")) == Path("runs/experiments")
    assert experiments_folder(tmp_path / "run" / "..") == tmp_path.parent / "experiments"
    monkeypatch.chdir(tmp_path)
    assert experiments_folder(Path()) == tmp_path.parent / "experiments"
    with pytest.raises(InputError, match="Choose another --run-dir"):
        experiments_folder(Path("runs/experiments"))


def test_experiments_are_found_by_id_beginning_and_folder(
    tmp_path: Path, folder: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [keep(tmp_path / place, config) for place in ("a", "größe", "a")]
    known = read_experiments(folder)
    assert [found.id for found in known] == names

    def find(asked: str) -> str:
        return find_experiment(known, asked, folder=folder).id

    assert [find(name) for name in names] == names
    assert find(str(tmp_path / "größe")) == names[1]
    assert find(str(tmp_path / "a")) == names[2]
    monkeypatch.chdir(tmp_path)
    assert find("größe/") == names[1]
    assert find("./a") == names[2]
    assert find(names[1][:-1]) == names[1]
    with pytest.raises(InputError, match=rf"`20` begins 3 ids: {', '.join(names)}\. Give more"):
        find("20")
    with pytest.raises(
        InputError, match=rf"no experiment `.*` in .*; did you mean {names[1]}\? The ids are {names[0]}"
    ):
        find(f"x{names[1]}")
    with pytest.raises(InputError, match="no record of this run folder"):
        find(str(folder))
    with pytest.raises(InputError, match="an empty id"):
        find(" ")


def test_two_runs_are_compared_customer_by_customer(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    a = keep(tmp_path / "a", config)
    b = keep(tmp_path / "b", config.model_copy(update={"seed": 7}), gru=0.75)
    result = invoke("compare", str(tmp_path / "a"), b, "--experiments", str(folder))
    assert result.exit_code == 0, result.output
    page = folder / f"{a}_{b}" / "comparison.html"
    assert result.stdout.splitlines()[-1] == f"comparison: {page}"
    # Each customer gains a quarter of .5.
    assert "gru of B vs gru of A on map@12: +50.0% (95% CI +50.0% to +50.0%), significant" in result.stdout
    document = json.loads((page.parent / "comparison.json").read_text(encoding="utf-8"))
    assert document["changes"]["settings"] == [{"name": "seed", "a": str(config.seed), "b": "7"}]
    assert "two_tower has the same map@12" in page.read_text(encoding="utf-8")


def test_other_data_are_not_compared(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    names = [
        keep(tmp_path / letter, config, fingerprints={**FINGERPRINTS, "purchases": letter * 64}) for letter in "ab"
    ]
    result = invoke("compare", *names, "--experiments", str(folder))
    assert result.exit_code == 0
    assert "These runs are not comparable" in result.stdout
    assert f"fingerprints {'a' * 12} in A and {'b' * 12} in B" in result.stdout
    assert "above" not in result.stdout


def test_what_cannot_be_compared_is_bad_input(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    result = invoke("compare", "a", "b", "--experiments", str(folder))
    assert result.exit_code == 2
    assert "no experiments here. `tfrs-fashion evaluate PIPELINE.toml`" in result.stderr
    assert not folder.exists()
    a, b = (keep(tmp_path / letter, config) for letter in "ab")
    with pytest.raises(InputError, match=f"are one record, {a}"):
        compare_experiments(folder, a, str(tmp_path / "a"))
    (folder / b / "customers.parquet").unlink()
    with pytest.raises(InputError, match=rf"{b}: 1 file\(s\) missing .* writes them again"):
        compare_experiments(folder, a, b)


def test_experiments_are_listed_newest_last(tmp_path: Path, folder: Path, config: PipelineConfig) -> None:
    names = [keep(tmp_path / f"run_{number}", config, gru=number / 4) for number in range(3)]
    result = invoke("experiments", "--experiments", str(folder))
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.strip().startswith("20")]
    assert [line[0] for line in lines] == names
    # Of what the pipeline recommends from: two towers, with a mean of .25.
    assert config.recommend.recommender == "two_tower"
    assert all(line[-3:] == ["two_tower", "map@12", "0.2500"] for line in lines)
    assert invoke("experiments", "--experiments", str(tmp_path / "nowhere")).exit_code == 2


def test_pandas_reads_the_log_as_the_page_says(
    tmp_path: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [keep(tmp_path / "runs" / letter, config, gru=gru) for letter, gru in (("a", 0.5), ("b", 0.75))]
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["figures"].query("metric == 'map@12'").pivot(
        index="id", columns="recommender", values="value"
    ).to_dict("index") == {names[0]: {"gru": 0.5, "two_tower": 0.25}, names[1]: {"gru": 0.75, "two_tower": 0.25}}
    assert found["settings"]["evaluation.k"].tolist() == [config.evaluation.k] * 2
    assert found["seconds"]["models/gru"].tolist() == [60.0, 60.0]
    assert found["customers"]["gru"].tolist() == [0.75] * 3


def test_a_run_records_its_report_and_once_only(tiny_run: "Run") -> None:
    from tfrs_fashion.evaluation.report.page import load_metrics

    folder = tiny_run.folder.parent / "experiments"
    again = type(tiny_run)(config=tiny_run.config, folder=tiny_run.folder)
    again.evaluate()
    (record,) = read_experiments(folder)
    assert again.messages[-1] == f"experiment: {record.id} in {folder / 'experiments.parquet'}"
    metrics = load_metrics(tiny_run.folder / "report")
    assert record.figures_by_recommender() == metrics["recommenders"]
    assert record.split == metrics["split"]
    metadata = json.loads((tiny_run.folder / "saved_models" / "two_tower" / "1" / "metadata.json").read_text())
    assert record.data_fingerprint == metadata["data_fingerprint"]
    assert (record.git_commit, record.libraries) == (metadata["git_commit"], metadata["libraries"])
    assert record.config == metadata["config"]
    stages = {"tables", "timelines", "models/als", "saved_models/two_tower_scann", "candidates/repurchase"}
    assert stages <= set(record.durations)
    assert record.durations["models/two_tower"] > 0
    customers = pd.read_parquet(folder / record.id / "customers.parquet").set_index("customer_id")
    assert set(customers) == set(tiny_run.config.servable)
    for name, figures in metrics["recommenders"].items():
        assert customers[name].mean() == pytest.approx(figures["map@12"]["value"])
    bought = tiny_run._targets("test")["customer_index"].unique()
    ids = tiny_run.tables.customers.execute().set_index("customer_index")["customer_id"]
    assert set(customers.index) == set(ids[bought])


def test_a_damaged_log_is_told_before_anything_is_done(tiny_run: "Run", tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "experiments.parquet").write_text("no log")
    run = type(tiny_run)(config=tiny_run.config, folder=tmp_path / "run")
    for work in (run.evaluate, run.everything):
        with pytest.raises(InputError, match="cannot be read"):
            work()
    assert not (tmp_path / "run").exists()
