"""Benchmarks run without arguments."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def required_arguments(source: str) -> list[str]:
    """What a script's parser refuses to do without."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    added = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"]
    found = []
    for call in added:
        name = ast.literal_eval(call.args[0])
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        may_lack = name.startswith("-") or options.get("nargs") in ("'?'", "'*'")
        if not may_lack or options.get("required") == "True":
            found.append(name)
    return found


def test_required_arguments_are_found() -> None:
    added = [
        "'a'",
        "'b', nargs='?'",
        "'c', nargs='*'",
        "'d', nargs='+'",
        "'-e'",
        "'--f', required=True",
        "'--g', type=int",
    ]
    assert required_arguments("\n".join(f"parser.add_argument({words})" for words in added)) == ["a", "d", "--f"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_runs_without_arguments(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert required_arguments(source) == []
