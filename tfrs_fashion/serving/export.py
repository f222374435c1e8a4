"""Export: a recommender as a SavedModel in TF Serving's layout, with its metadata. Nothing else writes SavedModels."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
from tf_keras.src.saving.legacy.saved_model.utils import keras_option_scope

from tfrs_fashion.features.inputs import HistoryTable, ProfileVocabulary
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.recommender import Recommender, longest_history
from tfrs_fashion.schema import InputError
from tfrs_fashion.serving.funnel import Funnel, IdTable
from tfrs_fashion.serving.provenance import git_commit, library_versions


def export_artifact(
    recommender: Recommender,
    fallback: Recommender,
    folder: Path,
    *,
    view: View,
    k: int,
    metadata: dict[str, Any],
) -> None:
    """Writes `saved_model.pb`, `variables/`, `assets/` and `metadata.json`.

    Args:
        recommender: Fitted.
        fallback: Fitted from the same; answers whoever the recommender cannot.
        folder: An empty folder.
        view: What the recommender was fitted from; each customer is answered at their cutoff in it.
        k: Articles that `serving_default` returns.
        metadata: What to keep beside library versions and the git commit.
    """
    with tempfile.TemporaryDirectory() as scratch:
        funnel = Funnel(
            recommender,
            fallback,
            customers=IdTable(view.timelines.customer_id, Path(scratch) / "customer_ids.txt"),
            articles=IdTable(view.articles.article_id, Path(scratch) / "article_ids.txt"),
            histories=HistoryTable(view.timelines.last(longest_history((recommender, fallback))), view.profiles),
            profile_vocabulary=ProfileVocabulary(view.profile_vocabulary),
            profile_numbers=tuple(view.timelines.profile_numbers),
            stores=view.timelines.store_id.tolist(),
            now=view.now,
            k=k,
        )
        # The custom operation of ScaNN is named here; the other indices use none.
        options = tf.saved_model.SaveOptions(namespace_whitelist=["Scann"])
        # The signatures hold all that is computed; Keras would trace and store a function of each layer beside them.
        with keras_option_scope(save_traces=False):
            tf.saved_model.save(funnel, str(folder), signatures=funnel.signatures(), options=options)
    made_by = {"libraries": library_versions(), "git_commit": git_commit()}
    metadata = {**metadata, "recommender": recommender.name, **made_by}
    (folder / "metadata.json").write_text(
        json.dumps(metadata, indent=2, ensure_ascii=False, sort_keys=True), encoding="utf-8"
    )


def list_versions(folder: Path) -> list[tuple[int, Path]]:
    """Lists the versions of an artifact, smallest first."""
    if not folder.is_dir():
        return []
    return sorted((int(path.name), path) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def latest_artifact(folder: Path) -> Path:
    """Returns the largest version, which is the one that TF Serving runs.

    Raises:
        InputError: There is none.
    """
    versions = list_versions(folder)
    if not versions:
        raise InputError(f"{folder}: no artifact here. Run `release` (or `export`) first.")
    return versions[-1][1]


def artifact_hash(folder: Path) -> str:
    """Returns a SHA-256 over the names and contents of an artifact's files, less the record of when it was written."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json"):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_models_config(folder: Path) -> None:
    """Writes TF Serving's `models.config` for every artifact in a folder, as mounted at `/models`."""
    entries = []
    for path in sorted(folder.iterdir()):
        if list_versions(path):
            entries.append(
                f'  config {{\n    name: "{path.name}"\n    base_path: "/models/{path.name}"\n'
                '    model_platform: "tensorflow"\n  }\n'
            )
    partial = folder / ".models.config.partial"
    partial.write_text("model_config_list {\n" + "".join(entries) + "}\n", encoding="utf-8")
    partial.replace(folder / "models.config")
