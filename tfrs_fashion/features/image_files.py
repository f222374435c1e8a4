"""Image files: their status, their size according to the header, and their decoded pixels in batches."""

import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.embedding_cache import digest_bytes
from tfrs_fashion.schema import InputError, RowCount

Status = Literal["ok", "no path", "missing file", "broken", "too large"]

# Number of files read, and of images decoded, at a time; bounds the memory on machines of many cores.
_PARALLEL = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Limits:
    """The limits above which an image is not decoded.

    Attributes:
        file_bytes: Maximum size of a file in bytes.
        pixels: Maximum width times height, as stated by the file's header.
    """

    file_bytes: int = 32 * 2**20
    pixels: int = 50_000_000


@dataclass(frozen=True)
class ImageFile:
    """An image file that was read but not decoded.

    Attributes:
        status: `ok` if it may be decoded, which can still fail; else the cause.
        digest: Digest of all its bytes; empty unless `ok`.
        content: The bytes to decode; empty unless `ok`.
        width: Width in pixels.
        height: Height in pixels.
    """

    status: Status
    digest: str = ""
    content: bytes = b""
    width: int = 0
    height: int = 0


def check_root(root: Path) -> None:
    """Checks that the folder of images exists.

    Raises:
        InputError: There is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images. Give the folder that `image_path` is relative to.")


def count_statuses(status: np.ndarray, samples: Mapping[str, Sequence[str]] | None = None) -> list[RowCount]:
    """Counts the articles without a usable image by cause.

    Args:
        status: `[num_articles]` object, values of `Status`.
        samples: Some paths by status, named as examples.

    Returns:
        One count per cause other than `ok` that occurs.
    """
    counts = []
    for cause in get_args(Status)[1:]:
        named = ", ".join(map(repr, (samples or {}).get(cause, ())))
        rule = f"image: {cause}{f', e.g. {named}' if named else ''}"
        counts.append(RowCount("articles", rule, int((status == cause).sum())))
    return [count for count in counts if count.rows]


def _measure_jpeg(content: bytes) -> tuple[int, int]:
    place = 2
    while content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # Padding before a marker.
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, place + 5)
            return width, height
        elif 0xD0 <= marker <= 0xD8 or marker == 0x01:
            place += 2
        else:
            place += 2 + max(2, struct.unpack_from(">H", content, place + 2)[0])
    raise ValueError("no frame header")


def _measure_webp(content: bytes) -> tuple[int, int]:
    match content[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            bits = struct.unpack_from("<I", content, 21)[0]
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            width_low, width_high, height_low, height_high = struct.unpack_from("<HBHB", content, 24)
            return (width_high << 16) + width_low + 1, (height_high << 16) + height_low + 1
    raise ValueError("no WebP")


def _first_frame(content: bytes) -> tuple[int, int, bytes]:
    """Returns the width and height of a GIF's first frame, and the GIF cut off after it, so that no later frame is decoded."""
    screen_width, screen_height, flags = struct.unpack_from("<HHB", content, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def skip_blocks(place: int) -> int:
        while content[place]:
            place += content[place] + 1
        return place + 1

    while content[place] == 0x21:
        place = skip_blocks(place + 2)
    if content[place] != 0x2C:
        raise ValueError("no frame")
    width, height, flags = struct.unpack_from("<HHB", content, place + 5)
    place += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    end = skip_blocks(place + 1)
    return max(width, screen_width), max(height, screen_height), content[:end] + b";"


def measure_image(content: bytes) -> tuple[int, int, bytes]:
    """Reads an image's size from its header, without decoding it.

    Args:
        content: The content of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
        Width and height in pixels, and the bytes to decode: of a GIF, only its first frame.

    Raises:
        ValueError: The content has another format, or ends too early.
    """
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return *_measure_jpeg(content), content
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", content, 16)
        elif content.startswith((b"GIF87a", b"GIF89a")):
            return _first_frame(content)
        elif content.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", content, 18)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            width, height = _measure_webp(content)
        else:
            raise ValueError("not an image")
    except (IndexError, struct.error) as error:
        raise ValueError("ends too early") from error
    return abs(width), abs(height), content


def read_image(path: str | None, *, root: Path, limits: Limits) -> ImageFile:
    """Reads an image file and its header; never fails, since whatever is wrong becomes the file's status.

    Args:
        path: Path relative to `root`, or absolute; null or empty if the article has no image.
        root: The folder of images.
        limits: The limits above which an image is not decoded.
    """
    if not isinstance(path, str) or not path.strip():
        return ImageFile("no path")
    file = root / path
    try:
        # Anything else could block: opening a pipe waits for a writer, and reading a device may never end.
        if not file.is_file():
            return ImageFile("missing file")
        with file.open("rb") as opened:
            content = opened.read(limits.file_bytes + 1)
    except OSError:
        return ImageFile("missing file")
    if len(content) > limits.file_bytes:
        return ImageFile("too large")
    try:
        width, height, first = measure_image(content)
    except ValueError:
        return ImageFile("broken")
    if width * height > limits.pixels:
        return ImageFile("too large")
    if width * height == 0:
        return ImageFile("broken")
    return ImageFile("ok", digest_bytes(content), first, width, height)


def read_images(paths: Iterable[str | None], *, root: Path, limits: Limits) -> Iterator[tuple[str | None, ImageFile]]:
    """Reads files in parallel and yields them in order; holds a few at a time, and consumes `paths` accordingly."""
    waiting: deque[tuple[str | None, Future[ImageFile]]] = deque()
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for path in paths:
            waiting.append((path, pool.submit(read_image, path, root=root, limits=limits)))
            if len(waiting) > _PARALLEL:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _shrink_power(file: ImageFile, image_size: int) -> int:
    """Returns how often (up to 3 times) the decoder may halve a JPEG's sides without going below `image_size`; 0 for others."""
    if not file.content.startswith(b"\xff\xd8\xff"):
        return 0
    return max(power for power in range(4) if power == 0 or min(file.width, file.height) >> power >= image_size)


# Traced once for all datasets; each epoch of training makes a new dataset.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)],
    autograph=False,
)
def _decode(content: tf.Tensor, shrink_power: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    decoders = [partial(tf.io.decode_image, content, channels=3, expand_animations=False)]
    decoders += [partial(tf.io.decode_jpeg, content, channels=3, ratio=ratio) for ratio in (2, 4, 8)]
    image = tf.ensure_shape(tf.switch_case(shrink_power, decoders), [None, None, 3])
    # Area means use every pixel, unlike interpolation, and need no float32 copy of a large image.
    return tf.image.resize(image[tf.newaxis], tf.stack([image_size, image_size]), method="area")[0]


def decode_images(
    files: Iterable[tuple[int, ImageFile]], *, image_size: int, batch_size: int
) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """Decodes images in parallel and resizes them to squares; images that cannot be decoded are left out.

    Args:
        files: Positions and files of status `ok`; consumed in another thread, as batches are requested.
        image_size: Side of the square in pixels.
        batch_size: Number of images per batch; the last batch may be smaller.

    Yields:
        `[batch]` int64 positions, and `[batch, image_size, image_size, 3]` float32 in [0, 255].

    Raises:
        Exception: Whatever `files` raised, after the batches before it were yielded.
    """
    failures: list[Exception] = []

    def contents() -> Iterator[tuple[int, bytes, int]]:
        # `ignore_errors` below is meant for undecodable images; an error of `files` must not be swallowed with them.
        try:
            for position, file in files:
                yield position, file.content, _shrink_power(file, image_size)
        except Exception as error:
            failures.append(error)

    signature = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32))
    dataset = tf.data.Dataset.from_generator(contents, output_signature=signature)

    def decode(position: tf.Tensor, content: tf.Tensor, power: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = _decode(content, power, tf.constant(image_size))
        return position, tf.ensure_shape(image, [image_size, image_size, 3])

    dataset = dataset.map(decode, num_parallel_calls=_PARALLEL)
    for position, images in dataset.ignore_errors().batch(batch_size).prefetch(1):
        yield position.numpy(), images
    if failures:
        raise failures[0]
