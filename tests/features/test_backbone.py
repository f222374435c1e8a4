import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tfrs_fashion.features import backbone as backbones
from tfrs_fashion.features.backbone import Backbone, FittedBackbone, Network, fit_backbone, load_backbone
from tfrs_fashion.features.image_embeddings import embed_images
from tfrs_fashion.schema import InputError, RowCount, RunError

COLOURS, SHAPES = ("red", "green", "blue"), ("circle", "square", "stripes")


@pytest.mark.parametrize("network", get_args(Network))
def test_saved_weights_load_equal(network: Network, tmp_path: Path) -> None:
    build = {
        "mobilenet_v2": tf.keras.applications.MobileNetV2,
        "mobilenet_v3_small": tf.keras.applications.MobileNetV3Small,
        "efficientnet_b0": tf.keras.applications.EfficientNetB0,
        "resnet50": tf.keras.applications.ResNet50,
    }[network]
    dim = {"mobilenet_v2": 1280, "mobilenet_v3_small": 576, "efficientnet_b0": 1280, "resnet50": 2048}[network]
    # As Keras saves its own; the size of images is no part of the weights.
    network_of_keras = build(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    network_of_keras.save_weights(tmp_path / "weights.h5")
    model = load_backbone(Backbone(tmp_path / "weights.h5", network=network, image_size=64))
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    given = model(images, training=False).numpy()
    assert given.shape == (2, dim)
    scaled = {
        "mobilenet_v2": images / 127.5 - 1,
        "mobilenet_v3_small": images,
        "resnet50": images[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32),
    }
    if network != "efficientnet_b0":
        assert np.allclose(given, network_of_keras(scaled[network], training=False), rtol=1e-4, atol=1e-5)


def test_efficientnet_scales_pixels_as_with_keras_own_weights(tmp_path: Path) -> None:
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    keras = tf.keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    (normalization,) = [layer for layer in keras.layers if isinstance(layer, tf.keras.layers.Normalization)]
    # The file that Keras offers holds these.
    for weight, value in zip(normalization.weights, (mean, deviation), strict=False):
        weight.assign(value.astype(np.float32).reshape(weight.shape))
    keras.save_weights(tmp_path / "weights.h5")
    model = load_backbone(Backbone(tmp_path / "weights.h5", network="efficientnet_b0", image_size=32))
    (inner,) = [layer for layer in model.layers if isinstance(layer, tf.keras.Model)]
    names = [layer.name for layer in inner.layers]
    start = names.index(next(name for name in names if name.startswith("normalization")))
    scaled = tf.keras.Model(inner.input, inner.layers[start].output)
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    found = scaled(backbones._scale_for_efficientnet(images)).numpy()
    # (x / 255 - mean) / sqrt(variance := deviation), and once more / sqrt(deviation), which Keras adds for ImageNet.
    assert np.allclose(found, (images / 255 - mean) / deviation, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"network": "vgg"},
            "Unknown network `vgg`; expected one of mobilenet_v2, mobilenet_v3_small, efficientnet_b0, re",
        ),
        ({"image_size": 31}, "`image_size` is 31; mobilenet_v2 needs at least 32 pixels"),
        ({"alpha": 0.0}, "`alpha` is 0.0 with mobilenet_v2; expected a number above 0 with a MobileNet, else 1"),
        ({"network": "resnet50"}, "`alpha` is 0.35 with resnet50; expected a number above 0 with a MobileNet, else 1"),
        (
            {"alpha": 1.0},
            r"random\.h5: these weights cannot be loaded \(.*hape.*\)\. Expected the weights of mobilenet_v2",
        ),
        (
            {"network": "efficientnet_b0", "alpha": 1.0},
            r"these weights cannot be loaded \(.*\)\. .* efficientnet_b0 without",
        ),
        (
            {"weights": Path("gone.h5")},
            r"gone\.h5: no such weights file\. .* train them with `fit_backbone`, or save Keras",
        ),
    ],
)
def test_invalid_backbone_raises(random_weights: Path, change: dict[str, object], message: str) -> None:
    wanted = replace(Backbone(random_weights, image_size=32, alpha=0.35), **change)
    with pytest.raises(InputError, match=message):
        load_backbone(wanted)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_invalid_weights_file_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.h5: these weights cannot be loaded \(.*docs/guide/images\.md"):
        load_backbone(Backbone(tmp_path / "weights.h5", image_size=32))


def test_weights_with_nan_raise(random_weights: Path, tmp_path: Path) -> None:
    network = tf.keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    network.get_layer("Conv1").kernel.assign(np.full([3, 3, 3, 16], np.nan))
    network.save_weights(tmp_path / "weights.h5")
    with pytest.raises(
        InputError, match=r"weights\.h5: 1 of 260 weights contain NaN or infinity, e\.g\. Conv1/kernel:0\. Exp"
    ):
        load_backbone(Backbone(tmp_path / "weights.h5", image_size=32, alpha=0.35))


@dataclass
class Gallery:
    """Images on disk, and what they show."""

    root: Path
    paths: list[str | None]
    colour: list[str | None]
    shape: list[str | None]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., np.ndarray]) -> Gallery:
    """180 images of three shapes in three colours."""
    made = Gallery(tmp_path_factory.mktemp("gallery"), [], [], [])
    for number in range(180):
        colour, shape = COLOURS[number % 3], SHAPES[number // 3 % 3]
        content = tf.io.encode_jpeg(draw(colour, shape, seed=number, side=64), quality=95).numpy()
        (made.root / f"{number}.jpg").write_bytes(content)
        made.paths.append(f"{number}.jpg")
        made.colour.append(colour)
        made.shape.append(shape)
    return made


def fit(gallery: Gallery, weights: Path, *, rows: slice = slice(None), **settings: object) -> FittedBackbone:
    return fit_backbone(
        paths=gallery.paths[rows],
        labels={"colour": gallery.colour[rows], "shape": gallery.shape[rows]},
        root=gallery.root,
        backbone=Backbone(weights, image_size=64, alpha=0.35),
        **{"epochs": 1, "batch_size": 16, "learning_rate": 5e-3, **settings},
    )


def test_fitted_backbone_separates_unseen_images(gallery: Gallery, tmp_path: Path) -> None:
    weights = tmp_path / "fitted.h5"
    console = Console(record=True, file=io.StringIO(), width=120)
    fitted = fit(gallery, weights, rows=slice(144), epochs=20, console=console)
    assert fitted.classes == {"colour": sorted(COLOURS), "shape": sorted(SHAPES)}
    assert fitted.counts == []
    assert len(fitted.losses) == 20
    # Guessing costs the logarithm of three classes for each feature.
    assert fitted.losses[-1] < 0.25 * 2 * math.log(3)
    assert f"backbone epoch 20/20  loss {fitted.losses[-1]:.4f}" in console.export_text()

    found = embed_images(
        paths=gallery.paths, root=gallery.root, backbone=Backbone(weights, image_size=64, alpha=0.35), cache=tmp_path
    )
    unit = found.embedding / np.linalg.norm(found.embedding, axis=1, keepdims=True)
    shown = np.array([f"{colour} {shape}" for colour, shape in zip(gallery.colour, gallery.shape, strict=True)])
    unseen, seen = np.arange(144, 180), np.arange(144)
    similarity = unit @ unit.T
    of = {name: unseen[shown[unseen] == name] for name in np.unique(shown)}
    # Two red circles are nearer to each other than either is to any blue stripes.
    circles = similarity[np.ix_(of["red circle"], of["red circle"])]
    assert circles.min() > similarity[np.ix_(of["red circle"], of["blue stripes"])].max()
    # The nearest known image of an unseen one shows the same, nearly always; by chance in one of nine.
    nearest = seen[similarity[np.ix_(unseen, seen)].argmax(axis=1)]
    assert (shown[nearest] == shown[unseen]).mean() > 0.8


@dataclass
class Taught:
    """A fit, and the file of its weights."""

    fitted: FittedBackbone
    weights: Path

    def read_weights(self) -> list[np.ndarray]:
        weights: list[np.ndarray] = load_backbone(Backbone(self.weights, image_size=64, alpha=0.35)).get_weights()
        return weights


@pytest.fixture(scope="module")
def clean(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Taught by eighteen good images."""
    weights = tmp_path_factory.mktemp("clean") / "clean.h5"
    return Taught(fit(gallery, weights, rows=slice(18), seed=3), weights)


@pytest.fixture(scope="module")
def spoilt(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Taught by the same images and the same seed, with bad images and labels among them."""
    (gallery.root / "text.jpg").write_text("no image")
    whole = (gallery.root / "0.jpg").read_bytes()
    (gallery.root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    rows = slice(18)
    images = Gallery(
        gallery.root,
        [*gallery.paths[rows], None, "gone.jpg", "text.jpg", "cut.jpg", "20.jpg", "21.jpg"],
        [*gallery.colour[rows], "red", "red", "red", "red", None, ""],
        [*gallery.shape[rows], "circle", "circle", "circle", "circle", "a shape of its own", None],
    )
    tf.random.normal([3])  # Whatever was drawn before does not matter.
    weights = tmp_path_factory.mktemp("spoilt") / "spoilt.h5"
    return Taught(fit(images, weights, seed=3), weights)


def test_the_same_seed_gives_the_same_weights(clean: Taught, spoilt: Taught) -> None:
    assert clean.fitted.losses == spoilt.fitted.losses
    pairs = zip(clean.read_weights(), spoilt.read_weights(), strict=True)
    assert all(np.array_equal(first, again) for first, again in pairs)
    assert [path.name for path in clean.weights.parent.iterdir()] == ["clean.h5"]


def test_bad_images_and_labels_do_not_change_the_weights(clean: Taught, spoilt: Taught) -> None:
    assert spoilt.fitted.counts == [
        RowCount("articles", "image: no path", 1),
        RowCount("articles", "image: missing file", 1),
        RowCount("articles", "image: broken", 2),
        RowCount("articles", "image without `colour`: not used for this feature", 2),
        RowCount("articles", "image without `shape`: not used for this feature", 1),
        RowCount("articles", "image whose `shape` no other image has: not used for this feature", 1),
    ]
    assert clean.fitted.counts == []
    assert spoilt.fitted.classes == clean.fitted.classes == {"colour": sorted(COLOURS), "shape": sorted(SHAPES)}


def test_missing_label_adds_no_loss() -> None:
    # An embedding of zeros gives equal logits: a feature costs the logarithm of its classes, wherever it is known.
    images = tf.keras.Input([1, 1, 3])
    model = tf.keras.Model(images, tf.keras.layers.Flatten()(0 * images))
    learn = backbones._make_step(model, model, [3, 2], tf.keras.optimizers.schedules.ExponentialDecay(0.0, 1, 1))

    def loss(*target: tuple[int, int]) -> float:
        return float(learn(tf.ones([2, 1, 1, 3]), tf.constant([True, False]), tf.constant(target)))

    assert loss((0, 0), (2, 1)) == pytest.approx(math.log(3) + math.log(2))
    assert loss((0, -1), (2, 1)) == pytest.approx(math.log(3) + math.log(2))
    assert loss((0, -1), (2, -1)) == pytest.approx(math.log(3))
    assert loss((-1, -1), (-1, 0)) == pytest.approx(math.log(2))


def replace_labels(gallery: Gallery, **labels: list[str | None]) -> Gallery:
    return Gallery(**{**vars(gallery), **labels})


def test_untrainable_features_are_left_out_and_counted(gallery: Gallery, tmp_path: Path) -> None:
    constant = replace_labels(gallery, colour=["red"] * 180)
    fitted = fit(constant, tmp_path / "weights.h5", rows=slice(9))
    assert list(fitted.classes) == ["shape"]
    rule = "`colour` left out: 1 value(s) with at least two images, expected 2 to 1,000"
    assert fitted.counts == [RowCount("articles", rule, 9)]
    of_its_own = replace_labels(constant, shape=[f"shape {number}" for number in range(180)])
    with pytest.raises(
        InputError,
        match=r"No feature can be learned from 9 usable images \(`colour` left out: 1 value.*; `shape` left out: 0 value.*\). Give more",
    ):
        fit(of_its_own, tmp_path / "weights.h5", rows=slice(9))


def test_feature_with_too_many_values_is_left_out() -> None:
    design, empty = [f"design {number // 2}" for number in range(2_002)], [None] * 2_002
    labels = {"design": design, "empty": empty, "colour": ["red", "blue"] * 1_001}
    classes, targets, counts = backbones._encode_labels(labels, np.ones(2_002, bool))
    assert classes == {"colour": ["blue", "red"]}
    assert targets.shape == (2_002, 1)
    assert [count.rule for count in counts] == [
        "`design` left out: 1,001 value(s) with at least two images, expected 2 to 1,000",
        "`empty` left out: 0 value(s) with at least two images, expected 2 to 1,000",
    ]
    assert len(backbones._encode_labels({"design": design[:2_000]}, np.ones(2_000, bool))[0]["design"]) == 1_000


def test_fit_without_usable_images_or_labels_raises(gallery: Gallery, tmp_path: Path) -> None:
    nowhere = Gallery(gallery.root, [None, "gone.jpg"], ["red", "blue"], ["circle", "square"])
    with pytest.raises(InputError, match=r"none of 2 images can be used \(1 image: no path; 1 image: missing file\)"):
        fit(nowhere, tmp_path / "weights.h5")
    with pytest.raises(InputError, match=r"none of 0 images can be used \(no articles\)"):
        fit(gallery, tmp_path / "weights.h5", rows=slice(0))
    with pytest.raises(
        InputError, match=r"`labels` has lengths \{\}; expected at least one feature, each of 180 values"
    ):
        fit_backbone(paths=gallery.paths, labels={}, root=gallery.root, backbone=Backbone(tmp_path / "weights.h5"))
    with pytest.raises(InputError, match=r"gone: no such folder of images"):
        fit(replace_root(gallery, tmp_path / "gone"), tmp_path / "weights.h5")


def replace_root(gallery: Gallery, root: Path) -> Gallery:
    return Gallery(root, gallery.paths, gallery.colour, gallery.shape)


def test_nan_loss_raises(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_make_step", lambda *_parts: lambda *_batch: tf.constant(math.nan))
    with pytest.raises(RunError, match=r"mobilenet_v2: the loss of epoch 1 is nan. Lower `learning_rate`"):
        fit(gallery, tmp_path / "weights.h5", rows=slice(32), epochs=3)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_weights_raise(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"weights.h5: cannot write here \(.*\). Choose another folder"):
        fit(gallery, tmp_path / "file" / "weights.h5")
    with pytest.raises(InputError, match=r"weights.ckpt: the name of a weights file must end in \.h5"):
        fit(gallery, tmp_path / "weights.ckpt")

    class Full:
        def save_weights(self, path: str) -> None:
            Path(path).write_bytes(b"half")
            raise OSError("No space left on device")

    with pytest.raises(RunError, match=r"weights.h5: the weights cannot be written \(No space left.* Free some space"):
        backbones._save_weights(Full(), tmp_path / "weights.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
