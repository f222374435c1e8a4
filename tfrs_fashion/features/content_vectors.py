"""Vectors of articles that are made outside the towers: of their images, and of their descriptions by other encoders."""

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
    """Embeds what the pipeline asks for.

    Args:
        articles: Indexed articles.
        images: What is to be done with `image_path`.
        sentence_encoder: Folder of a SavedModel; empty for none.
        categorical: Columns of articles that a network without given weights is trained to tell.
        as_of: It is trained on the articles known before this instant.
        cache: Folder of vectors that were computed before, and of trained weights.
        seed: Of that training.
        console: Where progress is shown.

    Returns:
        `[num_articles + 2, any]` float32, each kind of vector at length 1, zeros where an article has none; and how many
        articles had none, by cause.

    Raises:
        InputError: The articles have no `image_path`, or what the pipeline names cannot be read.
    """
    parts: list[Embeddings] = []
    if images.folder:
        parts.append(
            _embed_images(
                articles, images, categorical=categorical, as_of=as_of, cache=cache, seed=seed, console=console
            )
        )
    if sentence_encoder:
        texts = read_values(articles, "description")
        parts.append(
            embed_sentences(texts=texts, encoder=Path(sentence_encoder), cache=cache / "sentences", console=console)
        )
    num_articles = int(articles.count().execute())
    matrix = np.concatenate(
        [np.zeros((num_articles, 0), np.float32), *(_unit(part.embedding) for part in parts)], axis=1
    )
    counts = [count for part in parts for count in part.counts]
    return np.concatenate([np.zeros((FIRST_INDEX, matrix.shape[1]), np.float32), matrix]), counts


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
            "features.images: the articles have no column `image_path`. Map one to it, or leave `features.images` out."
        )
    root = Path(images.folder)
    settings: dict[str, Any] = {"network": images.network, "image_size": images.image_size, "alpha": images.alpha}
    counts: list[RowCount] = []
    if images.weights:
        backbone = Backbone(Path(images.weights), **settings)
    else:
        known = articles.filter(_.known_from.isnull() | (_.known_from < ibis.literal(as_of))).order_by("article_index")
        frame = known.select("image_path", **{name: _[name].cast("string") for name in categorical}).execute()
        paths, labels = frame["image_path"].tolist(), {name: frame[name].tolist() for name in categorical}
        name = _fingerprint(root, paths, labels, settings | {"epochs": images.epochs, "seed": seed})
        backbone = Backbone(cache / f"backbone-{name}.h5", **settings)
        counts = _fit_once(
            backbone, paths=paths, labels=labels, root=root, epochs=images.epochs, seed=seed, console=console
        )
    found = embed_images(
        paths=read_values(articles, "image_path"), root=root, backbone=backbone, cache=cache / "images", console=console
    )
    return replace(found, counts=found.counts + counts)


def _fingerprint(
    root: Path, paths: Sequence[str | None], labels: Mapping[str, Sequence[str | None]], rest: object
) -> str:
    """Names what a network learns from: equal images by their sizes and times, labels and settings give equal names."""
    digest = hashlib.sha256(json.dumps([labels, rest], sort_keys=True).encode("utf-8", "surrogatepass"))
    for path in paths:
        try:
            found = (root / path).stat() if path else None
        except (OSError, ValueError):
            found = None
        digest.update(json.dumps([path, found and [found.st_size, found.st_mtime_ns]]).encode())
    return digest.hexdigest()[:16]


def _fit_once(backbone: Backbone, **settings: Any) -> list[RowCount]:
    """Trains a network, unless that was done before: a run that was killed later need not do it again.

    Returns:
        What was not learned from, and why.
    """
    told = backbone.weights.with_suffix(".json")
    if not (told.is_file() and backbone.weights.is_file()):
        fitted = fit_backbone(backbone=backbone, **settings)
        partial = told.with_name(f".{uuid.uuid4().hex}-{told.name}")
        partial.write_text(json.dumps([asdict(count) for count in fitted.counts]), encoding="utf-8")
        partial.replace(told)
    counts = [RowCount(**count) for count in json.loads(told.read_text(encoding="utf-8"))]
    # Those of the embedding are of all articles, these of the articles that the network learned from.
    return [replace(count, rule=f"training the network: {count.rule}") for count in counts]


def _unit(embedding: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    return np.divide(embedding, length, out=np.zeros_like(embedding), where=length > 0)
