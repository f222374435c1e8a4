import functools
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console

from tfrs_fashion.features import image_embeddings
from tfrs_fashion.features.backbone import Backbone
from tfrs_fashion.features.embedding_cache import Embeddings, digest_bytes
from tfrs_fashion.features.image_embeddings import embed_images
from tfrs_fashion.features.image_files import Limits
from tfrs_fashion.schema import InputError

DIM = 1280
EMBED = """
import sys
from pathlib import Path
from tfrs_fashion.features.backbone import Backbone
from tfrs_fashion.features.image_embeddings import embed_images
root, weights, cache = map(Path, sys.argv[1:])
embed_images(
    paths=sorted(path.name for path in root.iterdir()) * 1000, root=root, cache=cache,
    backbone=Backbone(weights, image_size=32, alpha=0.35), batch_size=2, rows_per_part=4,
)
"""


@pytest.fixture
def backbone(random_weights: Path) -> Backbone:
    return Backbone(random_weights, image_size=32, alpha=0.35)


# Embedding changes nothing in a network, and to build one takes seconds.
LOAD_ONCE = functools.cache(image_embeddings.load_backbone)


@pytest.fixture(autouse=True)
def load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads each backbone once for all tests of the module; no file of weights changes."""
    monkeypatch.setattr(image_embeddings, "load_backbone", LOAD_ONCE)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., np.ndarray]) -> Path:
    """Forty different images, `00.png` to `39.png`."""
    folder = tmp_path_factory.mktemp("gallery")
    for number in range(40):
        content = tf.io.encode_png(draw(["red", "blue"][number % 2], "circle", seed=number)).numpy()
        (folder / f"{number:02}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def whole(gallery: Path, random_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    """The gallery embedded in one go."""
    return embed_images(
        paths=names(range(40)),
        root=gallery,
        backbone=Backbone(random_weights, image_size=32, alpha=0.35),
        cache=tmp_path_factory.mktemp("whole"),
        batch_size=16,
    )


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for the rounding of batches of another size."""
    return np.allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many vectors each call of the encoder gave."""
    sizes: list[int] = []
    check = image_embeddings.check_finite

    def count_and_check(vectors: np.ndarray, samples: list[str], *, where: str) -> None:
        sizes.append(len(vectors))
        check(vectors, samples, where=where)

    monkeypatch.setattr(image_embeddings, "check_finite", count_and_check)
    return sizes


def names(numbers: range) -> list[str]:
    return [f"{number:02}.png" for number in numbers]


def save(folder: Path, name: str, pixels: np.ndarray, **way: object) -> bytes:
    Image.fromarray(pixels).save(folder / name, **way)
    return (folder / name).read_bytes()


def test_vectors_are_those_of_the_network(gallery: Path, backbone: Backbone, whole: Embeddings) -> None:
    found = whole
    assert (found.embedding.shape, found.embedding.dtype) == ((40, DIM), np.float32)
    assert found.status.tolist() == ["ok"] * 40
    assert found.counts == []
    network = tf.keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    network.load_weights(backbone.weights)
    pixels = np.stack([np.asarray(Image.open(gallery / name)) for name in names(range(40))])
    scaled = tf.image.resize(pixels, [32, 32], method="area") / 127.5 - 1
    assert same(found.embedding, network(scaled, training=False).numpy())
    # The random network tells images apart, so that equal rows below mean equal images.
    assert len(np.unique(found.embedding, axis=0)) == 40


def test_results_come_in_the_order_given(gallery: Path, backbone: Backbone, tmp_path: Path, whole: Embeddings) -> None:
    order = np.random.default_rng(1).permutation(40)
    paths = [names(range(40))[number] for number in order]
    shuffled = embed_images(paths=paths, root=gallery, backbone=backbone, cache=tmp_path)
    assert same(shuffled.embedding, whole.embedding[order])


def test_equal_images_are_computed_once(gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int]) -> None:
    root = tmp_path / "images"
    root.mkdir()
    content = (gallery / "00.png").read_bytes()
    paths = ["a.png", "Kleid blau, größe 40.png", "青い ドレス👗.png", "a.png", str(gallery / "00.png"), "../above.png"]
    for path in paths[:3] + paths[5:]:
        (root / path).write_bytes(content)
    found = embed_images(paths=paths, root=root, backbone=backbone, cache=tmp_path / "cache")
    assert batches == [1]
    assert (found.status == "ok").all()
    assert (found.embedding == found.embedding[0]).all()


@pytest.fixture
def bad_gallery(tmp_path: Path, draw: Callable[..., np.ndarray]) -> tuple[Path, dict[str | None, str]]:
    """A file of each kind that may go wrong, and the status that it is to have."""
    root = tmp_path / "bad"
    root.mkdir()
    pixels = draw("red", "circle", seed=1)
    for name in ("ok.png", "ok.jpg", "ok.gif", "ok.bmp", "ok.webp"):
        save(root, name, pixels)
    for kind in ("png", "jpg", "gif", "bmp", "webp"):
        content = (root / f"ok.{kind}").read_bytes()
        (root / f"cut.{kind}").write_bytes(content[: len(content) // 2])
    (root / "text.jpg").write_text("no image")
    (root / "empty.png").write_bytes(b"")
    save(root, "print.tiff", pixels)
    save(root, "many_pixels.png", np.zeros((200, 200, 3), np.uint8))
    (root / "many_bytes.png").write_bytes((root / "ok.png").read_bytes() + bytes(20_000))
    (root / "folder").mkdir()
    expected: dict[str | None, str] = {
        None: "no path",
        "": "no path",
        "gone.jpg": "missing file",
        "folder": "missing file",
    }
    for path in root.iterdir():
        if path.is_file():
            bad = {"cut": "broken", "text": "broken", "empty": "broken", "print": "broken"}
            large = {"many_pixels": "too large", "many_bytes": "too large"}
            expected[path.name] = (bad | large).get(path.stem, "ok")
    return root, expected


def test_every_bad_file_is_counted_and_flagged(
    bad_gallery: tuple[Path, dict[str | None, str]], backbone: Backbone, tmp_path: Path, batches: list[int]
) -> None:
    root, expected = bad_gallery
    paths = sorted(expected, key=str)

    def embed() -> Embeddings:
        return embed_images(
            paths=paths, root=root, backbone=backbone, cache=tmp_path / "cache", limits=Limits(20_000, 30_000)
        )

    found = embed()
    assert dict(zip(paths, found.status, strict=True)) == expected
    wrong = found.status != "ok"
    assert (found.embedding[wrong] == 0).all()
    assert (found.embedding[~wrong] != 0).any(axis=1).all()
    assert sum(batches) == 5
    assert [(count.table, count.rows) for count in found.counts] == [
        ("articles", 2),
        ("articles", 2),
        ("articles", 8),
        ("articles", 2),
    ]
    assert found.counts[0].rule == "image: no path"
    assert found.counts[1].rule == "image: missing file, e.g. 'folder', 'gone.jpg'"
    assert found.counts[2].rule.startswith("image: broken, e.g. '")
    assert found.counts[2].rule.count("'") == 10
    assert found.counts[3].rule == "image: too large, e.g. 'many_bytes.png', 'many_pixels.png'"
    # A second time the good ones come from the cache, and the bad ones are as bad.
    again = embed()
    assert sum(batches) == 5
    assert again.counts == found.counts
    assert np.array_equal(again.embedding, found.embedding)


def test_a_broken_image_twice(backbone: Backbone, tmp_path: Path, draw: Callable[..., np.ndarray]) -> None:
    content = save(tmp_path, "ok.png", draw("red", "circle", seed=1))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content[:-20])
    found = embed_images(paths=["a.png", "b.png"], root=tmp_path, backbone=backbone, cache=tmp_path / "cache")
    assert found.status.tolist() == ["broken", "broken"]


def test_no_articles(gallery: Path, backbone: Backbone, tmp_path: Path) -> None:
    found = embed_images(paths=[], root=gallery, backbone=backbone, cache=tmp_path)
    assert (found.embedding.shape, found.status.shape, found.counts) == ((0, DIM), (0,), [])


def test_killed_half_way_it_computes_only_the_rest(
    gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int], whole: Embeddings
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", EMBED, str(gallery), str(backbone.weights), str(tmp_path)])
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("*/*.parquet"))) < 2:
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stored = sum(len(pd.read_parquet(path)) for path in tmp_path.glob("*/*.parquet"))
    assert stored >= 8
    found = embed_images(paths=names(range(40)), root=gallery, backbone=backbone, cache=tmp_path)
    assert sum(batches) == 40 - stored
    assert same(found.embedding, whole.embedding)


def test_what_paths_raise_is_raised_and_the_work_is_kept(
    gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int]
) -> None:
    def stopped() -> Iterator[str]:
        yield from names(range(20))
        raise LookupError("the table ended")

    with pytest.raises(LookupError, match="the table ended"):
        embed_images(paths=stopped(), root=gallery, backbone=backbone, cache=tmp_path)
    done = sum(batches)
    assert done > 0
    embed_images(paths=names(range(40)), root=gallery, backbone=backbone, cache=tmp_path)
    assert sum(batches) == 40


def test_a_damaged_part_is_computed_again(
    gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int]
) -> None:
    def embed() -> Embeddings:
        return embed_images(
            paths=names(range(20)), root=gallery, backbone=backbone, cache=tmp_path, batch_size=5, rows_per_part=10
        )

    first = embed()
    part = sorted(tmp_path.glob("*/*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-1])
    batches.clear()
    again = embed()
    assert sum(batches) == 10
    (count,) = again.counts
    assert (count.table, count.rows) == ("embedding cache", 10)
    assert part.name in count.rule
    assert same(again.embedding, first.embedding)


def test_another_encoder_computes_its_own(
    gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int]
) -> None:
    tf.keras.utils.set_random_seed(8)
    network = tf.keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    network.save_weights(tmp_path / "other.h5")
    # The same weights in another file are the same encoder; other weights or another size are not.
    (tmp_path / "copy.h5").write_bytes(backbone.weights.read_bytes())
    for change, computed in (
        ({}, 3),
        ({"weights": tmp_path / "copy.h5"}, 3),
        ({"weights": tmp_path / "other.h5"}, 6),
        ({"image_size": 40}, 9),
        ({}, 9),
    ):
        embed_images(
            paths=names(range(3)), root=gallery, backbone=replace(backbone, **change), cache=tmp_path / "cache"
        )
        assert sum(batches) == computed


def test_paths_are_taken_as_they_are_needed(
    gallery: Path, backbone: Backbone, tmp_path: Path, batches: list[int]
) -> None:
    num_images = 400
    root = tmp_path / "images"
    root.mkdir()
    content = (gallery / "00.png").read_bytes()
    for number in range(num_images):
        # Bytes after the end of a PNG make it another file of the same picture.
        (root / f"{number}.png").write_bytes(content + str(number).encode())
    ahead: list[int] = []

    def paths() -> Iterator[str]:
        for number in range(num_images):
            ahead.append(number - sum(batches))
            yield f"{number}.png"

    embed_images(paths=paths(), root=root, backbone=backbone, cache=tmp_path / "cache", batch_size=8)
    assert sum(batches) == num_images
    # Two batches that wait, one in the making, and a few files in work.
    assert max(ahead) < 100


def test_encoder_that_gives_infinity_raises(
    gallery: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tf.keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    model = tf.keras.Model(network.input, network.output / 0.0)
    monkeypatch.setattr(image_embeddings, "load_backbone", lambda _backbone: model)
    with pytest.raises(InputError, match=r"random.h5: 2 of 2 vectors .* NaN or infinity, e.g. for '00.png', '01"):
        embed_images(paths=names(range(2)), root=gallery, backbone=backbone, cache=tmp_path)


def test_a_root_that_is_no_folder(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such folder of images"):
        embed_images(paths=["a.png"], root=tmp_path / "gone", backbone=backbone, cache=tmp_path)


def test_progress_is_shown_on_a_terminal(gallery: Path, backbone: Backbone, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    embed_images(paths=names(range(3)), root=gallery, backbone=backbone, cache=tmp_path, console=console)
    assert "embed images" in console.file.getvalue()  # type: ignore[attr-defined]


def test_digests_are_of_the_file(gallery: Path, backbone: Backbone, tmp_path: Path) -> None:
    embed_images(paths=["00.png"], root=gallery, backbone=backbone, cache=tmp_path)
    (part,) = tmp_path.glob("*/*.parquet")
    assert pd.read_parquet(part)["key"].tolist() == [digest_bytes((gallery / "00.png").read_bytes())]
