"""The log of experiments: one record per report, kept next to the run folders."""

import datetime
import difflib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rich.box
import tomlkit
from rich.markup import escape
from rich.table import Table

from tfrs_fashion import __version__
from tfrs_fashion.evaluation.document import to_json_types, write_json, write_text
from tfrs_fashion.experiments.comparison import make_comparison, write_comparison
from tfrs_fashion.experiments.record import Experiment, list_figures
from tfrs_fashion.outputs import code_fingerprint, damage, exclusive_lock, fingerprint, write_atomically
from tfrs_fashion.schema import InputError
from tfrs_fashion.serving.provenance import git_commit, has_uncommitted_changes, library_versions
from tfrs_fashion.settings.pipeline import PipelineConfig

FOLDER, LOG = "experiments", "experiments.parquet"
# Files of a record's folder.
RECORD, CONFIG, _CUSTOMERS = "experiment.json", "config.toml", "customers.parquet"
# Columns stored as JSON, since their keys differ between runs.
_AS_JSON = ("split", "config", "libraries", "durations")
_FIGURE = pa.struct(
    [
        ("recommender", pa.string()),
        ("metric", pa.string()),
        *((edge, pa.float64()) for edge in ("value", "low", "high")),
    ]
)
_TYPES = {
    "time": pa.timestamp("us", tz="UTC"),
    "has_uncommitted_changes": pa.bool_(),
    "seed": pa.int64(),
    "figures": pa.list_(_FIGURE),
}
_SCHEMA = pa.schema([(field.name, _TYPES.get(field.name, pa.string())) for field in fields(Experiment)])
_NUM_LISTED = 5


def experiments_folder(run_folder: Path) -> Path:
    """Returns the folder of experiments, which is next to the run folder.

    Raises:
        InputError: The run folder has the same name.
    """
    folder = Path(os.path.normpath(run_folder))
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(run_folder))
    if folder.name == FOLDER:
        raise InputError(f"{run_folder}: this folder holds the log of experiments. Choose another --run-dir.")
    return folder.parent / FOLDER


def _without_null(value: Any) -> Any:
    """Drops null values, which TOML lacks; null is the default wherever it is allowed."""
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def write_record(
    folder: Path,
    *,
    config: PipelineConfig,
    run_folder: Path,
    split: Mapping[str, Any],
    recommenders: dict[str, dict[str, Any]],
    durations: Mapping[str, float],
    fingerprints: Mapping[str, str | None],
) -> None:
    """Writes the record of a report into its folder: `experiment.json`, and the settings as `config.toml`.

    Args:
        folder: Folder of the report.
        config: Settings of the pipeline.
        run_folder: Folder of the run.
        split: Dates and rule of the split.
        recommenders: Metrics by recommender, as in `metrics.json`.
        durations: Seconds that each stage took.
        fingerprints: Fingerprints of `data`, `purchases` and `targets`; see `Experiment`.
    """
    now = datetime.datetime.now(datetime.UTC)
    place = Path(os.path.abspath(run_folder))
    experiment = Experiment(
        id=f"{now:%Y%m%d-%H%M%S}-{fingerprint(now.isoformat(), str(place), os.getpid())[:6]}",
        time=now,
        pipeline=config.name,
        run_folder=place.name,
        version=__version__,
        git_commit=git_commit(),
        has_uncommitted_changes=has_uncommitted_changes(),
        code_fingerprint=code_fingerprint(),
        split=dict(split),
        seed=config.seed,
        config=config.model_dump(mode="json"),
        libraries=library_versions(),
        durations=dict(durations),
        figures=list_figures(recommenders),
        **{f"{name}_fingerprint": value for name, value in fingerprints.items()},  # type: ignore[arg-type]
    )
    write_json(folder / RECORD, asdict(experiment))
    # A source refuses settings of other sources even at their defaults.
    settings = {**experiment.config, "data": config.data.model_dump(mode="json", exclude_unset=True)}
    write_text(folder / CONFIG, tomlkit.dumps(_without_null(settings)))


def _to_row(experiment: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: experiment[name] for name in _SCHEMA.names}
    row |= {name: json.dumps(to_json_types(row[name]), ensure_ascii=False) for name in _AS_JSON}
    if isinstance(row["time"], str):
        row["time"] = datetime.datetime.fromisoformat(row["time"])
    return row


def _from_row(row: Mapping[str, Any]) -> Experiment:
    values = {name: row[name] for name in _SCHEMA.names}
    return Experiment(**{**values, **{name: json.loads(values[name]) for name in _AS_JSON}})


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return _to_row(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record of an experiment ({error!r}). Evaluate again with --force.") from error


def read_log(folder: Path) -> pa.Table:
    """Reads the log, or rebuilds it from the records' folders if it is missing.

    Raises:
        InputError: The log is damaged, or not a log of experiments.
    """
    path = folder / LOG
    if not path.is_file():
        # Folders that begin with a dot are incomplete.
        rows = [_read_record(path) for path in sorted(folder.glob(f"[!.]*/{RECORD}"))]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)
    try:
        log = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be read ({reason}), and was left as it is. Restore it from a copy, or move it away: the next "
            f"evaluation rebuilds it from the {RECORD} of each record."
        ) from error
    if missing := [name for name in _SCHEMA.names if name not in log.column_names]:
        columns = ", ".join(f"`{name}`" for name in missing)
        raise InputError(
            f"{path}: lacks {columns}, so it is not a log of this version. Move it away and evaluate again."
        )
    return log


def keep_record(report: Path, folder: Path) -> str:
    """Appends the record of a report to the log, unless it is already there.

    The log is replaced atomically, by one process at a time, so that a kill at any moment leaves it intact.

    Args:
        report: Folder of the report, with the files of `write_record` and `customers.parquet`.
        folder: Folder of experiments.

    Returns:
        The record's id.

    Raises:
        InputError: The log is damaged, or the folder cannot be written to.
    """
    row = _read_record(report / RECORD)
    name = str(row["id"])
    with exclusive_lock(folder, waits=True):
        log = read_log(folder)
        is_known = name in log.column("id").to_pylist()
        is_whole = (folder / name).is_dir() and damage(folder / name) is None
        if is_known and is_whole and (folder / LOG).is_file():
            return name
        with write_atomically(folder / name, fingerprint=name) as partial:
            for file in (RECORD, _CUSTOMERS, CONFIG):
                shutil.copyfile(report / file, partial / file)
        new = pa.Table.from_pylist([] if is_known else [row], schema=_SCHEMA)
        # Keeps columns that another version or a user added.
        combined = pa.concat_tables([log, new], promote_options="default")
        partial = folder / f".{LOG}.partial"
        try:
            pq.write_table(combined, partial)
            partial.replace(folder / LOG)
        finally:
            partial.unlink(missing_ok=True)
    return name


def read_experiments(folder: Path) -> list[Experiment]:
    """Reads all records, newest last.

    Raises:
        InputError: There is none, or the log is damaged.
    """
    experiments = [_from_row(row) for row in read_log(folder).to_pylist()]
    if not experiments:
        raise InputError(
            f"{folder}: no experiments here. `tfrs-fashion evaluate PIPELINE.toml` (or `run`) records one next to its run "
            "folder; use --experiments for another folder."
        )
    return sorted(experiments, key=lambda experiment: (experiment.time, experiment.id))


def _list_ids(known: Sequence[Experiment]) -> str:
    shown = ", ".join(experiment.id for experiment in known[-_NUM_LISTED:])
    return f"{shown} ({len(known) - _NUM_LISTED} earlier)" if len(known) > _NUM_LISTED else shown


def find_experiment(known: Sequence[Experiment], asked: str, *, folder: Path) -> Experiment:
    """Returns the record that an id, the beginning of an id, or a run folder identifies.

    Args:
        known: All records, newest last.
        asked: An id, the beginning of one, or a run folder, which stands for its latest record.
        folder: Folder of experiments.

    Raises:
        InputError: No record matches, or several do.
    """
    if not asked.strip():
        raise InputError("an empty id; `tfrs-fashion experiments` lists them.")
    place = Path(os.path.abspath(asked))
    is_beside = place.parent == Path(os.path.abspath(folder)).parent
    of_folder = [experiment for experiment in known if is_beside and experiment.run_folder == place.name]
    begun = [experiment for experiment in known if experiment.id.startswith(asked)]
    exact = [experiment for experiment in begun if experiment.id == asked]
    if exact or of_folder:
        return (exact or of_folder)[-1]
    if len(begun) > 1:
        raise InputError(f"`{asked}` begins {len(begun)} ids: {_list_ids(begun)}. Give more characters.")
    if begun:
        return begun[0]
    if place.is_dir():
        raise InputError(
            f"{asked}: no record of this run folder in {folder / LOG}. `tfrs-fashion evaluate` records one next to the run "
            "folder; use --experiments for another folder."
        )
    near = difflib.get_close_matches(asked, [experiment.id for experiment in known], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"no experiment `{asked}` in {folder / LOG}; {hint}The ids are {_list_ids(known)}.")


def _read_customers(folder: Path, experiment: Experiment) -> pd.DataFrame:
    place = folder / experiment.id
    lost = damage(place) if place.is_dir() else "no such folder"
    if lost is not None:
        raise InputError(
            f"{place}: {lost}; the metrics of each customer are needed. If the report of {experiment.run_folder} is still the "
            "same, `tfrs-fashion evaluate` there writes them again."
        )
    return pd.read_parquet(place / _CUSTOMERS).set_index("customer_id")


def compare_experiments(folder: Path, first: str, second: str) -> tuple[dict[str, Any], Path]:
    """Compares two records, and writes `<A>_<B>/comparison.html` and `comparison.json`.

    Args:
        folder: Folder of experiments.
        first: See `find_experiment`.
        second: The same.

    Returns:
        The content of `comparison.json`, and the path of the page.

    Raises:
        InputError: A record is not found or damaged, or both are the same.
    """
    known = read_experiments(folder)
    a, b = (find_experiment(known, asked, folder=folder) for asked in (first, second))
    if a.id == b.id:
        raise InputError(f"`{first}` and `{second}` are the same record, {a.id}: there is nothing to compare.")
    settings: dict[str, Any] = {"num_samples": int(b.config["evaluation"]["bootstrap_samples"]), "seed": b.seed}
    document = make_comparison(a, b, *(_read_customers(folder, one) for one in (a, b)), **settings)
    place = folder / f"{a.id}_{b.id}"
    with exclusive_lock(folder, waits=True), write_atomically(place, fingerprint=place.name) as partial:
        write_comparison(partial, document)
    return document, place / "comparison.html"


def experiments_table(known: Sequence[Experiment]) -> Table:
    """Formats records for a terminal: one row each, with the headline metric of the pipeline's recommender."""
    # Fits a terminal of 80 columns; the time is in the id.
    table = Table(
        title=f"{len(known):,} experiment{'' if len(known) == 1 else 's'}",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in ("id", "commit"):
        table.add_column(column, no_wrap=True)
    for column in ("run folder", "recommender"):
        table.add_column(column, overflow="fold")
    table.add_column("headline", justify="right", no_wrap=True)
    for experiment in known:
        name = experiment.config["recommend"]["recommender"]
        value = experiment.metrics().get(name, {}).get(f"map@{experiment.k}", {}).get("value")
        figure = "-" if value is None else f"map@{experiment.k} {value:.4f}"
        row = (experiment.id, experiment.code, experiment.run_folder, name, figure)
        table.add_row(*map(escape, row))
    return table
