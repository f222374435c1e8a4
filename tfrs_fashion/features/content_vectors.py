"""Precomputed content vectors of articles: embeddings of their images and of their descriptions."""

import datetime
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
from ibis import _
from rich.console import Console

from tfrs_fashion.features.articles import read_values
from tfrs_fashion.features.backbone import Backbone, fit_backbone
from tfrs_fashion.features.embedding_cache import Embeddings
from tfrs_fashion.features.image_embeddings import embed_images
from tfrs_fashion.features.sentence_embeddings import embed_sentences
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount
from tfrs_fashion.settings.base import ImagesConfig


def make_vectors(
    articles: ibis.Table,
    *,
    images: ImagesConfig,
    sentence_encoder: str,
    categorical: Sequence[str],
    as_of: datetime.datetime,
    cache: Path,
    seed: int,
    console: Console | None = None,
) -> tuple[np.ndarray, list[RowCount]]:
    """Embeds images and descriptions as the settings say.

    Args:
        articles: Indexed articles.
        images: The settings of images; an empty folder disables them.
        sentence_encoder: Folder of a SavedModel that encodes descriptions; empty disables them.
        categorical: Columns of articles that a network without given weights is trained to classify.
        as_of: Cutoff of this training: it sees the articles known before this instant.
        cache: Folder of the cache of vectors and trained weights.
        seed: Seed of this training.
        console: Console of progress bars; None shows none.

    Returns:
        `[num_articles + 2, any]` float32: image embedding and sentence embedding side by side, each of unit length, zeros where
        an article has none; and the number of articles without one by cause.

    Raises:
        InputError: The articles have no `image_path`, or a file or folder of the settings cannot be read.
    """
    embeddings: list[Embeddings] = []
    if images.folder:
        embeddings.append(
            _embed_images(
                articles, images, categorical=categorical, as_of=as_of, cache=cache, seed=seed, console=console
            )
        )
    if sentence_encoder:
        texts = read_values(articles, "description")
        embeddings.append(
            embed_sentences(texts=texts, encoder=Path(sentence_encoder), cache=cache / "sentences", console=console)
        )
    num_articles = int(articles.count().execute())
    # Unit length, so that neither kind of embedding dominates a layer that reads both.
    columns = [np.zeros((num_articles, 0), np.float32), *(_unit(one.embedding) for one in embeddings)]
    vectors = np.pad(np.concatenate(columns, axis=1), [(FIRST_INDEX, 0), (0, 0)])
    return vectors, [count for one in embeddings for count in one.counts]


def _embed_images(
    articles: ibis.Table,
    images: ImagesConfig,
    *,
    categorical: Sequence[str],
    as_of: datetime.datetime,
    cache: Path,
    seed: int,
    console: Console | None,
) -> Embeddings:
    if "image_path" not in articles.columns:
        raise InputError(
            "features.images: the articles have no column `image_path`. Map one to it, or remove `features.images`."
        )
    root = Path(images.folder)
    network: dict[str, Any] = {"network": images.network, "image_size": images.image_size, "alpha": images.alpha}
    counts: list[RowCount] = []
    if images.weights:
        backbone = Backbone(Path(images.weights), **network)
    else:
        known = articles.filter(_.known_from.isnull() | (_.known_from < ibis.literal(as_of))).order_by("article_index")
        frame = known.select("image_path", **{name: _[name].cast("string") for name in categorical}).execute()
        paths, labels = frame["image_path"].tolist(), {name: frame[name].tolist() for name in categorical}
        name = _fingerprint(root, paths, labels, network | {"epochs": images.epochs, "seed": seed})
        backbone = Backbone(cache / f"backbone-{name}.h5", **network)
        counts = _fit_once(
            backbone, paths=paths, labels=labels, root=root, epochs=images.epochs, seed=seed, console=console
        )
    embeddings = embed_images(
        paths=read_values(articles, "image_path"), root=root, backbone=backbone, cache=cache / "images", console=console
    )
    return replace(embeddings, counts=embeddings.counts + counts)


def _fingerprint(
    root: Path, paths: Sequence[str | None], labels: Mapping[str, Sequence[str | None]], settings: object
) -> str:
    """Returns a digest of all that a network is trained on; images count by size and modification time, which is fast."""
    digest = hashlib.sha256(json.dumps([labels, settings], sort_keys=True).encode("utf-8", "surrogatepass"))
    for path in paths:
        try:
            stat = (root / path).stat() if path else None
        except (OSError, ValueError):
            stat = None
        digest.update(json.dumps([path, stat and [stat.st_size, stat.st_mtime_ns]]).encode())
    return digest.hexdigest()[:16]


def _fit_once(backbone: Backbone, **settings: Any) -> list[RowCount]:
    """Trains a backbone unless its weights are in the cache, so that a run killed later does not train again.

    Returns:
        The images and labels that the training could not use, by cause.
    """
    path = backbone.weights.with_suffix(".json")
    if not (path.is_file() and backbone.weights.is_file()):
        fitted = fit_backbone(backbone=backbone, **settings)
        partial = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
        partial.write_text(json.dumps([asdict(count) for count in fitted.counts]), encoding="utf-8")
        partial.replace(path)
    counts = [RowCount(**count) for count in json.loads(path.read_text(encoding="utf-8"))]
    # The counts of the embedding are of all articles, these of the articles in the training.
    return [replace(count, rule=f"training the network: {count.rule}") for count in counts]


def _unit(embedding: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    return np.divide(embedding, length, out=np.zeros_like(embedding), where=length > 0)
