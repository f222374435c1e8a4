"""What the README shows works: its code runs, its commands and options exist, its links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tfrs_fashion.cli import app
from tfrs_fashion.run.run import Run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/tfrs-fashion (.+)$", README, flags=re.MULTILINE)


def python_of(page: str) -> str:
    """The first Python block of a page."""
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]


def test_the_python_lines_run(tiny_run: Run, tiny_settings: tuple[str, ...]) -> None:
    code = python_of(README)
    assert '"saved_models/tiny/two_tower/1"' in code
    assert '"pipelines/tiny.toml"' in code
    evaluated = tiny_run.folder / "saved_models" / "two_tower" / "1"
    settings = [f"export.folder={tiny_run.config.export.folder}", *tiny_settings]
    pipeline = f"{str(ROOT / 'pipelines' / 'tiny.toml')!r}, {settings!r}, run_dir={str(tiny_run.folder)!r}"
    code = code.replace('"saved_models/tiny/two_tower/1"', repr(str(evaluated)))
    names: dict[str, Any] = {}
    exec(code.replace('"pipelines/tiny.toml"', pipeline), names)
    lists = names["recommender"].recommend(["c00001", "c00002"], k=12)
    assert list(lists.columns) == ["customer_id", "article_id", "rank", "score", "source"]
    assert lists.groupby("customer_id").size().to_dict() == {"c00001": 12, "c00002": 12}
    run = names["run"]
    assert {"map@12", "recall@12"} <= set(run.metrics()["metric"])
    assert set(run.recommendations()["customer_id"]) >= {"c00001", "c00002"}
    assert len(run.tables.transactions) > 1000


def test_tensorflow_alone_asks_an_artifact(tiny_run: Run) -> None:
    page = (ROOT / "docs" / "guide" / "serving.md").read_text(encoding="utf-8")
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "tf.saved_model" in block
    )
    assert '"saved_models/two_tower/1"' in code
    evaluated = tiny_run.folder / "saved_models" / "two_tower" / "1"
    names: dict[str, object] = {}
    exec(code.replace("saved_models/two_tower/1", str(evaluated)), names)
    answer = names["answer"]
    assert isinstance(answer, dict)
    assert {name: tuple(value.shape) for name, value in answer.items()} == dict.fromkeys(
        ("article_ids", "scores", "sources"), (2, 5)
    )
    assert bool(tf.reduce_all(answer["sources"][1] == "two_tower"))


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_options_exist(command: str) -> None:
    verb, pipeline, *rest = command.split()
    assert (ROOT / pipeline).is_file()
    shown = CliRunner().invoke(app, [verb, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.output


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([\w./-]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)", README))))
def test_make_has_the_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
