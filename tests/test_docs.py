"""The documentation is true: links lead somewhere, commands and settings exist, generated pages are up to date."""

import importlib
import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from tfrs_fashion.cli import app
from tfrs_fashion.settings.file import load_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "saved_models" / "README.md"])
# Pipeline files that a page invents, or that a command of the page writes.
INVENTED = ("my_shop.toml", "shop.toml", "best.toml", "PIPELINE.toml")
# Bash functions that write each command down instead of running it, one argument per line and a blank line behind.
RECORD = 'record() { printf "%s\\n" "$@"; echo; }\ntfrs-fashion() { record "$@"; }\n' + "\n".join(
    f"{name}() {{ :; }}" for name in ("python", "make", "pip", "tensorboard", "tensorflow_model_server")
)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors_of(page: Path) -> set[str]:
    """Headings as GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands_of(page: Path) -> list[list[str]]:
    """The `tfrs-fashion` commands of a page's code blocks, as a shell splits them."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
    shell = [block for kind, block in blocks if not kind and re.search(r"tfrs-fashion [a-z]|^[A-Z]+='", block)]
    script = "\n".join(shell).replace(".venv/bin/", "")
    done = subprocess.run(["bash", "-c", f"{RECORD}\n{script}"], capture_output=True, text=True, check=True, cwd=ROOT)
    return [command.splitlines() for command in done.stdout.split("\n\n") if command]


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]


def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!http)([\w./-]*)(?:#([\w-]+))?\)", text_of(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} in {page.name}"
        if anchor:
            assert anchor in anchors_of(target), f"{path}#{anchor} in {page.name}"


def test_the_index_links_to_every_page() -> None:
    linked = {(DOCS / path).resolve() for path in re.findall(r"\]\(([\w./-]+\.md)\)", text_of(DOCS / "README.md"))}
    assert {page for folder in ("guide", "reference", "results") for page in (DOCS / folder).glob("*.md")} == linked


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=[f"{page.stem}-{number}" for number, (page, _) in enumerate(COMMANDS)]
)
def test_a_command_has_a_verb_options_and_settings_that_exist(page: Path, command: list[str]) -> None:
    verb, *rest = command
    shown = CliRunner().invoke(app, [verb, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.output
    settings = [value for option, value in itertools.pairwise(rest) if option == "--set"]
    pipelines = [word for word in rest if word.endswith(".toml") and not word.endswith(INVENTED)]
    for pipeline in pipelines:
        load_config(ROOT / pipeline, settings)


def test_enough_commands_are_checked() -> None:
    assert len(COMMANDS) >= 40


@pytest.mark.parametrize("page", ["settings", "commands"])
def test_a_generated_page_is_up_to_date(page: str) -> None:
    rendered = getattr(make_reference(), f"render_{page}")()
    assert text_of(DOCS / "reference" / f"{page}.md") == rendered, "run `python docs/make_reference.py`"


def test_every_setting_is_explained() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|`]+ \| [^|]* \| (.*) \|$", make_reference().render_settings(), flags=re.MULTILINE
    )
    assert len(rows) > 200
    assert [key for key, meaning in rows if not meaning] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text_of(page)) if page.name != "CHANGELOG.md" else []
    assert [
        path for path in named if not (ROOT / path).is_file() and not (ROOT / "tfrs_fashion" / path).is_file()
    ] == []


@pytest.mark.parametrize(
    ("module", "name"),
    sorted(
        {
            found
            for page in PAGES
            for found in re.findall(r"^from (tfrs_fashion[\w.]*) import (\w+)", text_of(page), re.M)
        }
    ),
)
def test_what_a_page_imports_exists(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)
