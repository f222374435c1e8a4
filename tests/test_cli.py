import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from tfrs_fashion import __version__
from tfrs_fashion.cli import app
from tfrs_fashion.outputs import exclusive_lock

VERBS = (
    *("run", "prepare", "explore", "train", "export", "evaluate", "backtest", "release", "recommend"),
    *("explain", "relevance", "tune"),
)
# These read what runs recorded, and take no pipeline.
READERS = ("experiments", "compare", "mlflow")
# So small that a verb takes a second or two.
SMALL = {
    "data.num_customers": "30",
    "data.num_articles": "20",
    "data.num_days": "40",
    "recommenders": "['popularity_7d']",
}


@pytest.fixture
def tiny(root: Path) -> str:
    return str(root / "pipelines" / "tiny.toml")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def invoke(verb: str, pipeline: str, run_dir: Path, *options: str, **settings: str) -> Result:
    values = {**SMALL, "recommend.recommender": "popularity_7d", **settings}
    changes = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    return CliRunner().invoke(app, [verb, pipeline, "--run-dir", str(run_dir), *changes, *options])


def message(result: Result, *, exit_code: int) -> str:
    """The only line on standard error."""
    assert result.exit_code == exit_code, result.output
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.output
    assert len(lines) == 1, result.stderr
    word = {1: "failed: ", 2: "error: "}[exit_code]
    assert lines[0].startswith(word)
    return lines[0].removeprefix(word)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=600)


def test_help_loads_no_tensorflow() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from tfrs_fashion.cli import app\n"
        f"for verb in ['', *{VERBS + READERS!r}]:\n"
        "    answer = CliRunner().invoke(app, [*([verb] if verb else []), '--help'])\n"
        "    assert answer.exit_code == 0, answer.output\n"
        "    assert 'Usage' in answer.output\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'tf_keras', 'scann')])"
    )
    answer = python("-c", program)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_help_names_every_verb() -> None:
    answer = CliRunner().invoke(app, ["--help"])
    assert all(f" {verb} " in answer.stdout for verb in VERBS + READERS)


@pytest.mark.parametrize("arguments", [[], ["no-such-verb"], ["run"], ["run", "a.toml", "--no-such-option"]])
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("options", [["--k", "5"], ["--customers", "some.txt"]])
def test_a_submission_has_twelve_articles_for_everybody(tiny: str, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["recommend", tiny, "--format", "kaggle", *options])
    assert result.exit_code == 2
    assert "12 articles for every customer" in " ".join(result.output.split())
    assert CliRunner().invoke(app, ["recommend", tiny, "--format", "xml"]).exit_code == 2


def test_a_length_below_one_is_bad_usage(tiny: str) -> None:
    assert CliRunner().invoke(app, ["recommend", tiny, "--k", "0"]).exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_key_names_the_nearest_one(verb: str, tiny: str, run_dir: Path) -> None:
    needed = ["--customer", "c1"] if verb == "explain" else []
    found = message(invoke(verb, tiny, run_dir, *needed, **{"split.test_day": "3"}), exit_code=2)
    assert found.startswith(f"{tiny}: unknown key `split.test_day`; did you mean `test_days`?")
    assert not run_dir.exists()


def test_a_missing_pipeline_file(tmp_path: Path, run_dir: Path) -> None:
    path = str(tmp_path / "nowhere [b].toml")
    found = message(invoke("prepare", path, run_dir), exit_code=2)
    # Nothing in a path is taken for markup.
    assert found == f"{path}: cannot read the pipeline file (No such file or directory)."


def test_a_missing_column_names_its_file(root: Path, tmp_path: Path, run_dir: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("transactions", "products", "demographics"):
        pd.DataFrame({"household_id": [1]}).to_parquet(raw / f"{name}.parquet")
    pipeline = str(root / "pipelines" / "complete_journey.toml")
    found = message(invoke("prepare", pipeline, run_dir, **{"data.path": str(raw)}), exit_code=2)
    assert found.startswith(f"{raw / 'transactions.parquet'}: missing ")
    assert "`sales_value`" in found
    # Nothing half-written is left.
    assert [path.name for path in run_dir.iterdir()] == [".lock"]


def test_a_missing_raw_file_is_named(root: Path, tmp_path: Path, run_dir: Path) -> None:
    pipeline = str(root / "pipelines" / "complete_journey.toml")
    found = message(invoke("prepare", pipeline, run_dir, **{"data.path": str(tmp_path)}), exit_code=2)
    assert found.startswith(f"{tmp_path / 'transactions.parquet'}: no such file.")


def test_a_folder_that_cannot_be_written(tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    found = message(invoke("prepare", tiny, file / "run"), exit_code=2)
    assert found.startswith(f"{file / 'run'}: cannot write here (")
    assert "--run-dir" in found


def test_an_empty_window_names_the_dates(tiny: str, run_dir: Path) -> None:
    found = message(invoke("train", tiny, run_dir, **{"split.test_days": "9999"}), exit_code=2)
    assert found.startswith("split: the test window from ")
    assert "the transactions run from 2024-01-0" in found
    # Days before the year 1 are no reason for another kind of message.
    found = message(invoke("train", tiny, run_dir, **{"split.test_days": "99999999"}), exit_code=2)
    assert "split" in found


@pytest.mark.parametrize("key", ["split.in_store_days"])
def test_more_days_than_there_are_mean_all_of_them(tiny: str, run_dir: Path, key: str) -> None:
    result = invoke("train", tiny, run_dir, **{key: "99999999"})
    assert result.exit_code == 0, result.output


def test_a_folder_in_use_is_left_alone(tiny: str, run_dir: Path) -> None:
    with exclusive_lock(run_dir):
        found = message(invoke("prepare", tiny, run_dir), exit_code=2)
    assert found.startswith(f"{run_dir}: another process is at work here.")


def test_the_last_lines_name_what_was_written(tiny: str, tmp_path: Path) -> None:
    # A folder's name may look like markup.
    run_dir = tmp_path / "run [red] [" / "b]"
    result = invoke("prepare", tiny, run_dir)
    assert result.exit_code == 0, result.output
    written = ("tables", "tables/counts.json", "timelines")
    assert result.stdout.splitlines()[-3:] == [f"wrote: {run_dir / name}" for name in written]
    again = invoke("prepare", tiny, run_dir)
    assert again.stdout.splitlines() == [f"up to date: {run_dir / 'tables'}", f"up to date: {run_dir / 'timelines'}"]


def test_the_tables_are_shown_once_they_are_written(tiny: str, run_dir: Path) -> None:
    shown = invoke("explore", tiny, run_dir).stdout
    transactions = pd.read_parquet(run_dir / "tables" / "transactions.parquet")
    days = transactions["t_dat"].dt.normalize()
    first, last = days.min(), days.max()
    words = [line.split() for line in shown.splitlines()]
    assert ["customers", "30"] in words
    assert ["articles", "20"] in words
    span = f"{first.date()} to {last.date()}, {(last - first).days + 1} day(s)"
    assert ["transactions", f"{len(transactions):,}", *span.split()] in words
    assert "day(s)" not in invoke("explore", tiny, run_dir).stdout


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (
            "features.categorical",
            "['colr']",
            "features.categorical: the articles table has no column(s) `colr` (did you",
        ),
        ("features.roles.women", "['Ladies']", "features.roles.women: 'Ladies' should be values of the column"),
    ],
)
def test_features_are_checked_before_timelines_are_written(
    tiny: str, run_dir: Path, setting: str, value: str, words: str
) -> None:
    # Of tables that are up to date as well.
    for _time in range(2):
        assert words in message(invoke("prepare", tiny, run_dir, **{setting: value}), exit_code=2)
        assert (run_dir / "tables").exists()
        assert not (run_dir / "timelines").exists()


def test_the_version_is_that_of_the_package() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.stdout) == (0, f"tfrs-fashion {__version__}\n")


def test_a_corrupted_file_is_a_failure_not_bad_input(tiny: str, run_dir: Path) -> None:
    assert invoke("prepare", tiny, run_dir).exit_code == 0
    shard = min((run_dir / "timelines").glob("*.tfrecord-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    found = message(invoke("train", tiny, run_dir), exit_code=1)
    assert "a shard is corrupted" in found
    assert "prepare --force" in found


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.toml")
    answer = python("-m", "tfrs_fashion.cli", "prepare", path)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr + answer.stdout
    answer = python("-m", "tfrs_fashion.cli", "prepare", path, "--debug")
    assert "Traceback" in answer.stderr
    assert "cannot read the pipeline file" in answer.stderr
    assert answer.returncode == 2
