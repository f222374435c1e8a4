"""Backbones: convolutional networks that embed images, with weights from a local file or trained here."""

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfrs_fashion.features.image_files import (
    ImageFile,
    Limits,
    check_root,
    count_statuses,
    decode_images,
    read_images,
)
from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount, RunError
from tfrs_fashion.settings.base import Network

_SMALLEST_IMAGE = 32
# A feature with more values, such as the product code, identifies articles rather than describing how they look.
_MOST_CLASSES = 1000
# Statistics of ImageNet's channels, for EfficientNet; see `_scale_for_efficientnet`.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A network, the file of its weights, and the size of its input.

    Attributes:
        weights: An `.h5` file of the network's weights without its top; see docs/images.md.
        network: A network of `tf.keras.applications`.
        image_size: Side in pixels of the square that images are resized to.
        alpha: Width multiplier of a MobileNet.
    """

    weights: Path
    network: Network = "mobilenet_v2"
    image_size: int = 224
    alpha: float = 1.0


@dataclass(frozen=True)
class FittedBackbone:
    """The result of training a backbone, besides the file of its weights.

    Attributes:
        classes: The classes of each feature in the training: its values with at least two images.
        losses: Mean loss by epoch: cross-entropy in nats, summed over features.
        counts: Number of unusable images by cause, and of labels left out.
    """

    classes: dict[str, list[str]]
    losses: list[float]
    counts: list[RowCount]


def _scale_for_efficientnet(images: tf.Tensor) -> tf.Tensor:
    """Scales pixels as Keras does for its own ImageNet weights of EfficientNet.

    For these weights, Keras adds a layer to the network that divides by `sqrt(deviation)` once more; for weights from a file
    it leaves the layer out. The network starts with `(x / 255 - mean) / sqrt(deviation)`, so the same factor can be applied
    to `x` around its mean.
    """
    mean = 255 * tf.constant(_IMAGENET_MEAN)
    return mean + (images - mean) / tf.sqrt(tf.constant(_IMAGENET_DEVIATION))


def _check_backbone(backbone: Backbone) -> None:
    if backbone.network not in get_args(Network):
        raise InputError(f"Unknown network `{backbone.network}`; expected one of {', '.join(get_args(Network))}.")
    if backbone.image_size < _SMALLEST_IMAGE:
        raise InputError(
            f"`image_size` is {backbone.image_size}; {backbone.network} needs at least {_SMALLEST_IMAGE} pixels."
        )
    if backbone.alpha <= 0 or (backbone.alpha != 1 and not backbone.network.startswith("mobilenet")):
        raise InputError(
            f"`alpha` is {backbone.alpha} with {backbone.network}; expected a number above 0 with a MobileNet, else 1."
        )
    # Keras would read a file of any other name as a TensorFlow checkpoint.
    if backbone.weights.suffix != ".h5":
        raise InputError(
            f"{backbone.weights}: the name of a weights file must end in .h5. Rename it, or choose another file."
        )


def _build(backbone: Backbone) -> tuple[tf.keras.Model, tf.keras.Model]:
    """Returns the network with random weights, and a model of pixels in [0, 255] that scales them and applies the network."""
    shape = (backbone.image_size, backbone.image_size, 3)
    applications = tf.keras.applications
    build: Callable[..., tf.keras.Model]
    scale: Callable[[tf.Tensor], tf.Tensor]
    kwargs: dict[str, Any] = {"include_top": False, "weights": None, "input_shape": shape, "pooling": "avg"}
    match backbone.network:
        case "mobilenet_v2":
            build, scale = applications.MobileNetV2, applications.mobilenet_v2.preprocess_input
            kwargs["alpha"] = backbone.alpha
        case "mobilenet_v3_small":
            build, scale = applications.MobileNetV3Small, applications.mobilenet_v3.preprocess_input
            kwargs["alpha"] = backbone.alpha
        case "efficientnet_b0":
            build, scale = applications.EfficientNetB0, _scale_for_efficientnet
        case "resnet50":
            build, scale = applications.ResNet50, applications.resnet50.preprocess_input
    network = build(**kwargs)
    images = tf.keras.Input(shape)
    return network, tf.keras.Model(images, network(scale(images)), name=backbone.network)


def load_backbone(backbone: Backbone) -> tf.keras.Model:
    """Loads a backbone.

    Args:
        backbone: The network and the local file of its weights; nothing is downloaded.

    Returns:
        A model that maps `[batch, image_size, image_size, 3]` float32 pixels in [0, 255] to `[batch, dim]` float32, the
        features of the last layer averaged over the image.

    Raises:
        InputError: The weights file is missing, cannot be read, belongs to another network or contains NaN.
    """
    _check_backbone(backbone)
    remedy = (
        f"Expected the weights of {backbone.network} without its top (alpha {backbone.alpha}) in an .h5 file: train "
        "them with `fit_backbone`, or save Keras's own once on a machine with Internet access; docs/images.md shows both."
    )
    if not backbone.weights.is_file():
        raise InputError(f"{backbone.weights}: no such weights file. {remedy}")
    network, model = _build(backbone)
    try:
        network.load_weights(str(backbone.weights))
    except Exception as error:  # HDF5 and Keras raise errors without a common base.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{backbone.weights}: these weights cannot be loaded ({reason}). {remedy}") from error
    # Checked here because the output may hide them: a rectifier turns NaN into 0.
    bad = [weight.name for weight in network.weights if not np.isfinite(weight.numpy()).all()]
    if bad:
        raise InputError(
            f"{backbone.weights}: {len(bad):,} of {len(network.weights):,} weights contain NaN or infinity, e.g. "
            f"{', '.join(bad[:5])}. {remedy}"
        )
    return model


def _save_weights(network: tf.keras.Model, path: Path) -> None:
    partial = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        network.save_weights(str(partial))
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: the weights cannot be written ({error}). Free some space and fit again.") from error
    finally:
        partial.unlink(missing_ok=True)


def _find_usable(paths: Sequence[str | None], *, root: Path, limits: Limits, image_size: int) -> np.ndarray:
    """Returns the status of each image after decoding it: `[num_articles]` object."""
    status = np.full(len(paths), "broken", dtype=object)

    def files() -> Iterator[tuple[int, ImageFile]]:
        for position, (_path, file) in enumerate(read_images(paths, root=root, limits=limits)):
            if file.status == "ok":
                yield position, file
            else:
                status[position] = file.status

    for positions, _images in decode_images(files(), image_size=image_size, batch_size=32):
        status[positions] = "ok"
    return status


def _encode_labels(
    labels: Mapping[str, Sequence[str | None]], usable: np.ndarray
) -> tuple[dict[str, list[str]], np.ndarray, list[RowCount]]:
    """Returns the classes of each feature, `[num_articles, num_features]` class numbers (-1 if unknown or rare), and counts."""
    classes: dict[str, list[str]] = {}
    columns: list[np.ndarray] = []
    counts: list[RowCount] = []
    for name, values in labels.items():
        index = look_up(values, fit_vocabulary(values)) - FIRST_INDEX
        seen = np.bincount(index[usable & (index >= 0)], minlength=index.max(initial=-1) + 1)
        kept = np.flatnonzero(seen > 1)
        if not 2 <= len(kept) <= _MOST_CLASSES:
            rule = (
                f"`{name}` left out: {len(kept):,} value(s) with at least two images, expected 2 to {_MOST_CLASSES:,}"
            )
            counts.append(RowCount("articles", rule, int(usable.sum())))
            continue
        classes[name] = [fit_vocabulary(values)[number] for number in kept]
        columns.append(look_up(values, classes[name]) - FIRST_INDEX)
        missing = usable & (index < 0)
        counts += [
            RowCount("articles", f"image without `{name}`: not used for this feature", int(missing.sum())),
            RowCount(
                "articles",
                f"image whose `{name}` no other image has: not used for this feature",
                int((seen == 1).sum()),
            ),
        ]
    if not classes:
        causes = "; ".join(row.rule for row in counts)
        raise InputError(
            f"No feature can be learned from {int(usable.sum()):,} usable images ({causes}). Give more images, another "
            "feature of articles, or the network's weights."
        )
    return classes, np.stack(columns, axis=1), [count for count in counts if count.rows]


def _make_step(
    network: tf.keras.Model, model: tf.keras.Model, num_classes: Sequence[int], schedule: tf.keras.optimizers.schedules
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a training step: a function of images, whether to flip each, and `[batch, num_features]` targets; gives the loss."""
    # The default momentum averages over about a thousand steps; after few steps, the averages would still be near their
    # initial values, and inference would use them.
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.9
    heads = [tf.keras.layers.Dense(number) for number in num_classes]
    classifier = tf.keras.Model(model.input, [head(model.output) for head in heads])
    optimizer = tf.keras.optimizers.Adam(schedule)
    # Creating the optimizer's variables here saves a second trace of the step.
    optimizer.build(classifier.trainable_variables)

    @tf.function(autograph=False)
    def learn(images: tf.Tensor, flipped: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        images = tf.where(flipped[:, tf.newaxis, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)
        with tf.GradientTape() as tape:
            loss = tf.constant(0.0)
            # A model with one output returns a tensor, not a list of one tensor.
            outputs = tf.nest.flatten(classifier(images, training=True))
            for label, logits in zip(tf.unstack(target, axis=1), outputs, strict=True):
                known = tf.cast(label >= 0, tf.float32)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.maximum(label, 0), logits=logits)
                loss += tf.math.divide_no_nan(tf.reduce_sum(losses * known), tf.reduce_sum(known))
        weights = classifier.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    return learn


def fit_backbone(
    *,
    paths: Sequence[str | None],
    labels: Mapping[str, Sequence[str | None]],
    root: Path,
    backbone: Backbone,
    limits: Limits | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 1,
    console: Console | None = None,
) -> FittedBackbone:
    """Trains a backbone to classify articles' categorical features from their images, and writes its weights.

    It trains on every row, so pass only articles known before the cutoff. Images are read again in each epoch, so memory
    does not grow with their number.

    Args:
        paths: `[num_articles]` paths, relative to `root`; null where an article has no image.
        labels: `[num_articles]` values by feature; null and empty values are not trained on. A feature with fewer than two
            values, or with more than a thousand, is left out and counted.
        root: The folder of images.
        backbone: The network to train from random weights; `weights` is the file to write.
        limits: The limits above which an image is not decoded.
        epochs: Number of passes over the images.
        batch_size: Number of images per step.
        learning_rate: Initial learning rate of Adam, which falls to 0 along a cosine.
        seed: Seed of weights, order and flips. The same seed gives the same weights on the same machine.
        console: Console of the progress bar and the losses; None shows none.

    Returns:
        The classes, the losses, and the counts of what could not be used.

    Raises:
        InputError: A folder or the network is invalid, no feature can be learned, or no image can be used.
        RunError: The loss is not finite, or the weights cannot be written.
    """
    check_root(root)
    _check_backbone(backbone)
    try:
        backbone.weights.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{backbone.weights}: cannot write here ({error.strerror}). Choose another folder.") from error
    lengths = {name: len(values) for name, values in labels.items()}
    if set(lengths.values()) != {len(paths)}:
        raise InputError(
            f"`labels` has lengths {lengths}; expected at least one feature, each of {len(paths):,} values."
        )
    limits = limits or Limits()
    status = _find_usable(paths, root=root, limits=limits, image_size=backbone.image_size)
    counts = count_statuses(status)
    usable = status == "ok"
    if not usable.any():
        causes = "; ".join(f"{row.rows:,} {row.rule}" for row in counts)
        raise InputError(f"{root}: none of {len(paths):,} images can be used ({causes or 'no articles'}).")
    classes, targets, untaught = _encode_labels(labels, usable)
    rows = np.flatnonzero(usable & (targets >= 0).any(axis=1))
    batch_size = min(batch_size, len(rows))
    steps = len(rows) // batch_size
    tf.keras.utils.set_random_seed(seed)
    network, model = _build(backbone)
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps * epochs)
    learn = _make_step(network, model, [len(values) for values in classes.values()], schedule)

    losses: list[float] = []
    with Progress(console=console, disable=console is None or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("fit backbone", total=steps * epochs)
        for epoch in range(epochs):
            random = np.random.default_rng([seed, epoch])
            order = random.permutation(rows)
            read = read_images([paths[row] for row in order], root=root, limits=limits)
            files = ((int(row), file) for row, (_path, file) in zip(order, read, strict=True) if file.status == "ok")
            total = 0.0
            for positions, images in decode_images(files, image_size=backbone.image_size, batch_size=batch_size):
                if len(positions) == batch_size:  # A smaller last batch would distort the batch statistics.
                    flipped = tf.constant(random.random(batch_size) < 0.5)
                    total += float(learn(images, flipped, tf.constant(targets[positions])))
                    progress.advance(task)
            losses.append(total / steps)
            if not math.isfinite(losses[-1]):
                raise RunError(
                    f"{backbone.network}: the loss of epoch {epoch + 1} is {losses[-1]}. Lower `learning_rate`."
                )
            if console is not None:
                console.print(f"  backbone epoch {epoch + 1}/{epochs}  loss {losses[-1]:.4f}", highlight=False)
    _save_weights(network, backbone.weights)
    return FittedBackbone(classes=classes, losses=losses, counts=counts + untaught)
