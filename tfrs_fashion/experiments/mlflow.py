"""Records of experiments as runs of MLflow, for teams that keep all of theirs there."""

import json
import logging
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfrs_fashion.evaluation.document import to_json_types
from tfrs_fashion.experiments.comparison import flatten
from tfrs_fashion.experiments.log import CONFIG, RECORD, read_experiments
from tfrs_fashion.experiments.record import Experiment
from tfrs_fashion.outputs import exclusive_lock
from tfrs_fashion.schema import InputError

# By which a run is known again.
_TAG = "tfrs_fashion.experiment"
# Below the folder of the experiments: one export at a time holds it.
_PLACE = ".mlflow"
# MLflow takes so many params or tags at a time.
_BATCH = 100
# Of a param and of a tag; what is longer ends with an ellipsis.
_MAX_LENGTH = 6000
# Of a key.
_MAX_KEY = 250
_ABOUT = (
    "run_folder",
    "version",
    "code_fingerprint",
    "data_fingerprint",
    "purchases_fingerprint",
    "targets_fingerprint",
)


def _import_mlflow() -> Any:
    # MLflow tells its makers of its use unless it is told not to; and where a server does not answer it asks for minutes.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow
    except ImportError as error:
        raise InputError("MLflow is not installed. Install it: pip install 'tfrs-fashion[mlflow]'.") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _refusals(mlflow: Any) -> tuple[type[Exception], ...]:
    """What a server, a database, its driver or a disk says no by."""
    database = sys.modules.get("sqlalchemy.exc")
    of_database = () if database is None else (database.SQLAlchemyError,)
    return (mlflow.exceptions.MlflowException, OSError, ImportError, *of_database)


def _without_password(uri: str) -> str:
    """Returns an address as it may be shown.

    >>> _without_password("postgresql://shop:secret@db:5432/mlflow"), _without_password("sqlite:///mlflow.db")
    ('postgresql://shop:...@db:5432/mlflow', 'sqlite:///mlflow.db')
    """
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:...@", uri)


def mlflow_key(name: str) -> str:
    """Returns a name with what MLflow refuses in keys written out.

    >>> mlflow_key("two_tower/map@12"), mlflow_key("a(b)")
    ('two_tower/map_at_12', 'a_x28_b_x29_')
    """
    named = name.replace("@", "_at_")
    return re.sub(r"[^\w.\-/ :]", lambda found: f"_x{ord(found[0]):x}_", named)[:_MAX_KEY]


def _words(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= _MAX_LENGTH else f"{words[: _MAX_LENGTH - 1]}…"


def _tags(experiment: Experiment) -> dict[str, str]:
    """What a run was made by and from, but for its settings."""
    about = {name: getattr(experiment, name) for name in _ABOUT}
    about |= {f"split.{name}": value for name, value in experiment.split.items()}
    about |= {f"library.{name}": version for name, version in experiment.libraries.items()}
    tags = {f"tfrs_fashion.{mlflow_key(name)}": _words(value) for name, value in about.items() if value is not None}
    if experiment.git_commit is not None:
        tags["mlflow.source.git.commit"] = experiment.git_commit
        tags["tfrs_fashion.has_uncommitted_changes"] = _words(experiment.has_uncommitted_changes)
    return tags


def _settings(experiment: Experiment) -> dict[str, Any]:
    """All settings by dotted key, but for those of generators that nothing was made of."""
    config = experiment.config
    used = {*config["recommenders"], *config["blend"]["generators"], config["recommend"]["recommender"]}
    generators = {name: made for name, made in config["generators"].items() if name in used}
    return flatten({**config, "generators": generators})


def _metrics(experiment: Experiment) -> dict[str, float]:
    """The figures of all customers, the edges of their intervals, and the seconds of every stage."""
    found: dict[str, float] = {}
    for row in experiment.figures:
        # Of a group of customers; a page of MLflow shows what it is given.
        if "=" in row["metric"]:
            continue
        name = f"{row['recommender']}/{row['metric']}"
        has_interval = row["low"] != row["high"]
        for edge, key in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
            if row[edge] is not None and (edge == "value" or has_interval):
                found[mlflow_key(key)] = float(row[edge])
    return found | {mlflow_key(f"seconds/{name}"): float(seconds) for name, seconds in experiment.durations.items()}


def _write_run(client: Any, mlflow: Any, experiment: Experiment, *, group: str, place: Path) -> None:
    instant = int(experiment.time.timestamp() * 1000)
    started = client.create_run(group, start_time=instant, run_name=experiment.id, tags={_TAG: experiment.id})
    run, entities = started.info.run_id, mlflow.entities
    params = [entities.Param(mlflow_key(key), _words(value)) for key, value in _settings(experiment).items()]
    tags = [entities.RunTag(key, value) for key, value in _tags(experiment).items()]
    metrics = [entities.Metric(key, value, instant, 0) for key, value in _metrics(experiment).items()]
    for start in range(0, max(len(params), len(tags), len(metrics)), _BATCH):
        some = slice(start, start + _BATCH)
        client.log_batch(run, params=params[some], tags=tags[some], metrics=metrics[some])
    # The log alone holds all but the pipeline file, should the record's own folder be gone.
    client.log_dict(run, to_json_types(asdict(experiment)), RECORD)
    if (place / CONFIG).is_file():
        client.log_artifact(run, str(place / CONFIG))
    client.set_terminated(run, end_time=instant)


def export_experiments(folder: Path, tracking_uri: str) -> tuple[int, int]:
    """Writes each record as a run of the MLflow experiment that has the name of its pipeline.

    Settings of what was used become params by dotted key, figures of all customers metrics (`two_tower/map_at_12`, with `_low` and
    `_high`), seconds of stages metrics (`seconds/tables`), and what else a record says tags; `experiment.json` and `config.toml`, which hold all of it, go with the run as
    artifacts. A record that is there is not written again; one that a process left half-written is.

    Args:
        folder: Of the experiments.
        tracking_uri: Of a tracking server or database, e.g. `sqlite:///mlflow.db`.

    Returns:
        How many were written, and how many were there.

    Raises:
        InputError: There is no record, the log is damaged, MLflow is not installed, or it refuses.
    """
    known = read_experiments(folder)
    mlflow = _import_mlflow()
    written = there = 0
    shown = _without_password(tracking_uri)
    # What another process is writing would look half-written.
    with exclusive_lock(folder / _PLACE, waits=True):
        try:
            client = mlflow.MlflowClient(tracking_uri=tracking_uri)
            for experiment in known:
                group = _find_group(client, experiment.pipeline)
                runs = client.search_runs([group], filter_string=f"tags.`{_TAG}` = '{experiment.id}'")
                if any(run.info.status == "FINISHED" for run in runs):
                    there += 1
                    continue
                for half in runs:
                    client.delete_run(half.info.run_id)
                _write_run(client, mlflow, experiment, group=group, place=folder / experiment.id)
                written += 1
        except Exception as error:
            if not isinstance(error, _refusals(mlflow)):
                raise
            reason = str(error).replace(tracking_uri, shown).splitlines()[0].rstrip(". ")
            raise InputError(
                f"{shown}: {reason}. {written} record(s) were written, {there} were there, and {len(known) - written - there} are left; "
                "the same command writes these."
            ) from error
    return written, there


def _find_group(client: Any, name: str) -> str:
    """Returns the MLflow experiment of a name, made if there is none; one that is deleted refuses what is written to it."""
    group = client.get_experiment_by_name(name)
    return str(group.experiment_id if group is not None else client.create_experiment(name))
