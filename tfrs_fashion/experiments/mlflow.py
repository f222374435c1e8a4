"""Exports the log of experiments to MLflow."""

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

# The tag that identifies the record of a run.
_TAG = "tfrs_fashion.experiment"
# Locked by one export at a time, below the folder of experiments.
_LOCK = ".mlflow"
# MLflow's limits: params or tags per call, characters of their values, characters of a key.
_BATCH, _MAX_LENGTH, _MAX_KEY = 100, 6000, 250
_TAGS = (
    "run_folder",
    "version",
    "code_fingerprint",
    "data_fingerprint",
    "purchases_fingerprint",
    "targets_fingerprint",
)


def _import_mlflow() -> Any:
    # No telemetry, and no minutes of retries if a server does not answer.
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
    """Returns the errors by which a server, a database, its driver or a disk refuses."""
    database = sys.modules.get("sqlalchemy.exc")
    database_errors = () if database is None else (database.SQLAlchemyError,)
    return (mlflow.exceptions.MlflowException, OSError, ImportError, *database_errors)


def _without_password(uri: str) -> str:
    """Hides the password in an address.

    >>> _without_password("postgresql://shop:secret@db:5432/mlflow"), _without_password("sqlite:///mlflow.db")
    ('postgresql://shop:...@db:5432/mlflow', 'sqlite:///mlflow.db')
    """
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:...@", uri)


def mlflow_key(name: str) -> str:
    """Returns a valid MLflow key, with other characters spelled out.

    >>> mlflow_key("two_tower/map@12"), mlflow_key("a(b)")
    ('two_tower/map_at_12', 'a_x28_b_x29_')
    """
    key = re.sub(r"[^\w.\-/ :]", lambda match: f"_x{ord(match[0]):x}_", name.replace("@", "_at_"))
    return key[:_MAX_KEY]


def _write(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"


def _tags(experiment: Experiment) -> dict[str, str]:
    """Returns what a run was made from, except its settings."""
    about = {name: getattr(experiment, name) for name in _TAGS}
    about |= {f"split.{name}": value for name, value in experiment.split.items()}
    about |= {f"library.{name}": version for name, version in experiment.libraries.items()}
    tags = {f"tfrs_fashion.{mlflow_key(name)}": _write(value) for name, value in about.items() if value is not None}
    if experiment.git_commit is not None:
        tags["mlflow.source.git.commit"] = experiment.git_commit
        tags["tfrs_fashion.has_uncommitted_changes"] = _write(experiment.has_uncommitted_changes)
    return tags


def _settings(experiment: Experiment) -> dict[str, Any]:
    """Returns all settings by dotted key, except those of generators that were not used."""
    config = experiment.config
    used = {*config["recommenders"], *config["blend"]["generators"], config["recommend"]["recommender"]}
    generators = {name: settings for name, settings in config["generators"].items() if name in used}
    return flatten({**config, "generators": generators})


def _metrics(experiment: Experiment) -> dict[str, float]:
    """Returns the metrics over all customers with their intervals, and the seconds of every stage."""
    metrics: dict[str, float] = {}
    for row in experiment.figures:
        # Metrics of single slices of customers would drown the others on MLflow's page.
        if "=" in row["metric"]:
            continue
        name = f"{row['recommender']}/{row['metric']}"
        has_interval = row["low"] != row["high"]
        for edge, key in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
            if row[edge] is not None and (edge == "value" or has_interval):
                metrics[mlflow_key(key)] = float(row[edge])
    return metrics | {mlflow_key(f"seconds/{name}"): float(seconds) for name, seconds in experiment.durations.items()}


def _write_run(client: Any, mlflow: Any, experiment: Experiment, *, group: str, record_folder: Path) -> None:
    instant = int(experiment.time.timestamp() * 1000)
    started = client.create_run(group, start_time=instant, run_name=experiment.id, tags={_TAG: experiment.id})
    run, entities = started.info.run_id, mlflow.entities
    params = [entities.Param(mlflow_key(key), _write(value)) for key, value in _settings(experiment).items()]
    tags = [entities.RunTag(key, value) for key, value in _tags(experiment).items()]
    metrics = [entities.Metric(key, value, instant, 0) for key, value in _metrics(experiment).items()]
    for start in range(0, max(len(params), len(tags), len(metrics)), _BATCH):
        batch = slice(start, start + _BATCH)
        client.log_batch(run, params=params[batch], tags=tags[batch], metrics=metrics[batch])
    # From the log rather than the record's folder, which may be gone.
    client.log_dict(run, to_json_types(asdict(experiment)), RECORD)
    if (record_folder / CONFIG).is_file():
        client.log_artifact(run, str(record_folder / CONFIG))
    client.set_terminated(run, end_time=instant)


def export_experiments(folder: Path, tracking_uri: str) -> tuple[int, int]:
    """Writes each record as a run of the MLflow experiment named after its pipeline.

    Settings become params by dotted key; metrics over all customers (`two_tower/map_at_12`, with `_low` and `_high`) and seconds
    of stages (`seconds/tables`) become metrics; everything else becomes tags. `experiment.json` and `config.toml` are artifacts.
    Records already exported are skipped; one that an interrupted export left incomplete is written again.

    Args:
        folder: Folder of experiments.
        tracking_uri: URI of a tracking server or database, e.g. `sqlite:///mlflow.db`.

    Returns:
        The number of runs written, and of those already there.

    Raises:
        InputError: There is no record, the log is damaged, MLflow is not installed, or it fails.
    """
    known = read_experiments(folder)
    mlflow = _import_mlflow()
    written = present = 0
    shown = _without_password(tracking_uri)
    # A run that another export is still writing would look incomplete.
    with exclusive_lock(folder / _LOCK, waits=True):
        try:
            client = mlflow.MlflowClient(tracking_uri=tracking_uri)
            for experiment in known:
                group = _find_group(client, experiment.pipeline)
                runs = client.search_runs([group], filter_string=f"tags.`{_TAG}` = '{experiment.id}'")
                if any(run.info.status == "FINISHED" for run in runs):
                    present += 1
                    continue
                for incomplete in runs:
                    client.delete_run(incomplete.info.run_id)
                _write_run(client, mlflow, experiment, group=group, record_folder=folder / experiment.id)
                written += 1
        except Exception as error:
            if not isinstance(error, _refusals(mlflow)):
                raise
            reason = str(error).replace(tracking_uri, shown).splitlines()[0].rstrip(". ")
            raise InputError(
                f"{shown}: {reason}. {written} record(s) were written, {present} were already there, and "
                f"{len(known) - written - present} are left; run the same command again to write these."
            ) from error
    return written, present


def _find_group(client: Any, name: str) -> str:
    """Returns the id of the MLflow experiment of this name, which is created if necessary."""
    group = client.get_experiment_by_name(name)
    return str(group.experiment_id if group is not None else client.create_experiment(name))
