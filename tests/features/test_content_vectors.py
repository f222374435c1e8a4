import datetime
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.features import content_vectors as vectors_module
from tfrs_fashion.features.backbone import Backbone, FittedBackbone, load_backbone
from tfrs_fashion.features.content_vectors import make_vectors
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount
from tfrs_fashion.settings.base import ImagesConfig

AS_OF = datetime.datetime(2024, 2, 1)
# The rows come in no order. Article 3 has no image, 4 a broken one, 5 a path to nothing; 6 is known from the cutoff on.
ARTICLES = pd.DataFrame(
    {
        "article_id": ["e", "a", "c", "b", "d"],
        "article_index": np.array([6, 2, 4, 3, 5], np.int32),
        "description": ["later", "red circle", "", None, "blue square"],
        "image_path": ["later.png", "circle.png", "broken.png", None, "nowhere.png"],
        "colour": ["green", "red", None, "red", "blue"],
        "known_from": pd.Series([AS_OF, None, None, None, None]).astype("datetime64[us]"),
    }
)


@pytest.fixture
def images(tmp_path: Path, draw: Callable[..., np.ndarray], random_weights: Path) -> ImagesConfig:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour, shape in (("circle", "red", "circle"), ("later", "green", "square")):
        pixels = tf.io.encode_png(draw(colour, shape, seed=1))
        (folder / f"{name}.png").write_bytes(pixels.numpy())
    (folder / "broken.png").write_bytes(b"no image")
    return ImagesConfig(folder=str(folder), weights=str(random_weights), image_size=32, alpha=0.35, epochs=1)


def make(tmp_path: Path, images: ImagesConfig, **changes: Any) -> tuple[np.ndarray, dict[str, int]]:
    settings: dict[str, Any] = {"sentence_encoder": "", "categorical": ("colour",), "seed": 1, "as_of": AS_OF}
    articles = changes.pop("articles", ibis.memtable(ARTICLES))
    found, counts = make_vectors(articles, images=images, cache=tmp_path / "cache", **{**settings, **changes})
    return found, {count.rule: count.rows for count in counts}


def test_rows_follow_the_index_at_length_one_and_are_zero_where_there_is_no_image(
    tmp_path: Path, images: ImagesConfig, random_weights: Path
) -> None:
    found, counts = make(tmp_path, images)
    assert found.shape[0] == 5 + FIRST_INDEX
    assert found.dtype == np.float32
    # Articles 2 and 6 have an image.
    assert np.linalg.norm(found, axis=1).tolist() == pytest.approx([0, 0, 1, 0, 0, 0, 1], abs=1e-5)
    assert np.abs(found[2] - found[6]).max() > 1e-3
    model = load_backbone(Backbone(random_weights, network="mobilenet_v2", image_size=32, alpha=0.35))
    assert found.shape[1] == model.output_shape[-1]
    assert sum(counts.values()) == 3
    assert sorted(counts.values()) == [1, 1, 1]


def test_nothing_asked_for_makes_vectors_without_columns(tmp_path: Path) -> None:
    found, counts = make(tmp_path, ImagesConfig())
    assert found.shape == (5 + FIRST_INDEX, 0)
    assert counts == {}


def test_sentences_come_after_images_and_each_kind_has_length_one(
    tmp_path: Path, images: ImagesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str | None] = []

    def embed(*, texts: Any, **_settings: Any) -> vectors_module.Embeddings:
        given = list(texts)
        texts_seen(given)
        vectors = np.array([[3.0, 4.0] if text else [0.0, 0.0] for text in given], np.float32)
        return vectors_module.Embeddings(vectors, np.full(len(given), "ok", dtype=object), [])

    texts_seen = texts.extend
    monkeypatch.setattr(vectors_module, "embed_sentences", embed)
    found, _counts = make(tmp_path, images, sentence_encoder="somewhere")
    assert texts == ["red circle", None, "", "blue square", "later"]
    alone, _counts = make(tmp_path, images)
    np.testing.assert_array_equal(found[:, :-2], alone)
    said, nothing = [0.6, 0.8], [0, 0]
    assert found[:, -2:].tolist() == [
        pytest.approx(row) for row in (nothing, nothing, said, nothing, nothing, said, said)
    ]


def test_a_network_without_weights_is_trained_on_what_was_known_before_the_cutoff(
    tmp_path: Path, images: ImagesConfig, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def fit(*, backbone: Backbone, **settings: Any) -> FittedBackbone:
        calls.append(settings)
        backbone.weights.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(random_weights, backbone.weights)
        return FittedBackbone({}, [], [RowCount("articles", "image: broken", 1)])

    def killed(**_settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vectors_module, "fit_backbone", fit)
    untrained = images.model_copy(update={"weights": ""})
    with monkeypatch.context() as patch:
        patch.setattr(vectors_module, "embed_images", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, untrained)
    found, counts = make(tmp_path, untrained)
    # What a run learned before it was killed is learned.
    (given,) = calls
    assert counts["training the network: image: broken"] == 1
    # Beside what the embedding found: no path, a broken file and a missing one.
    assert sorted(counts.values()) == [1] * 4
    # Article 6, known from the cutoff on, is embedded and not learned from.
    assert given["paths"] == ["circle.png", None, "broken.png", "nowhere.png"]
    assert given["labels"] == {"colour": ["red", "red", None, "blue"]}
    assert given["epochs"] == 1
    assert np.linalg.norm(found[6]) == pytest.approx(1, abs=1e-5)
    # Other labels, settings or images are learned from anew, once each.
    for changes in ({"seed": 2}, {"categorical": ("colour", "description")}):
        make(tmp_path, untrained, **changes)
        make(tmp_path, untrained, **changes)
    make(tmp_path, untrained.model_copy(update={"epochs": 2}))
    assert len(calls) == 4
    (Path(images.folder) / "circle.png").write_bytes(b"no image any more")
    make(tmp_path, untrained)
    assert len(calls) == 5


def test_articles_without_image_path_raise(tmp_path: Path, images: ImagesConfig) -> None:
    with pytest.raises(InputError, match=r"features\.images: the articles have no column `image_path`"):
        make(tmp_path, images, articles=ibis.memtable(ARTICLES.drop(columns="image_path")))


def test_missing_folder_of_images_raises(tmp_path: Path, images: ImagesConfig) -> None:
    with pytest.raises(InputError, match="nowhere"):
        make(tmp_path, images.model_copy(update={"folder": str(tmp_path / "nowhere")}))
