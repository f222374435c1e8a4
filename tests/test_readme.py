"""What the README shows works: its code runs, its commands and options exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tfrs_fashion.cli import app
from tfrs_fashion.run.run import Run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/tfrs-fashion (.+)$", README, flags=re.MULTILINE)


def test_the_code_runs(tiny_run: Run) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert '"saved_models/two_tower/1"' in code
    judged = tiny_run.folder / "saved_models" / "two_tower" / "1"
    names: dict[str, object] = {}
    exec(code.replace("saved_models/two_tower/1", str(judged)), names)
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
