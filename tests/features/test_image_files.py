import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tfrs_fashion.features.embedding_cache import digest_bytes
from tfrs_fashion.features.image_files import (
    ImageFile,
    Limits,
    check_root,
    count_statuses,
    decode_images,
    measure_image,
    read_image,
    read_images,
)
from tfrs_fashion.schema import InputError, RowCount

LIMITS = Limits()
WAYS = {
    "jpeg": {"format": "JPEG"},
    "progressive jpeg": {"format": "JPEG", "progressive": True},
    "jpeg with a comment": {"format": "JPEG", "comment": b"\xff\xc0 a comment that looks like a frame header"},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "extended webp": {"format": "WEBP", "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
}


def written(image: Image.Image, **way: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **way)
    return stream.getvalue()


def plain(width: int, height: int, colour: tuple[int, int, int] = (200, 100, 50)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def make_png(width: int, height: int, rows: int) -> bytes:
    """A PNG that claims a size and holds so many black rows of it, compressed a thousandfold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes((width + 1) * rows), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def decode(*contents: bytes, image_size: int = 32) -> dict[int, np.ndarray]:
    """Decodes as the package does; images by position, without those that cannot be decoded."""
    files = []
    for position, content in enumerate(contents):
        width, height, first = measure_image(content)
        files.append((position, ImageFile("ok", digest_bytes(content), first, width, height)))
    found = {}
    for positions, images in decode_images(files, image_size=image_size, batch_size=2):
        found |= dict(zip(positions.tolist(), images.numpy(), strict=True))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (37, 260), (300, 41)])
def test_sizes_are_read_from_headers(way: str, width: int, height: int) -> None:
    assert measure_image(written(plain(width, height), **WAYS[way]))[:2] == (width, height)


@pytest.mark.parametrize("way", WAYS)
def test_each_format_is_decoded(way: str) -> None:
    image = decode(written(plain(50, 40), **WAYS[way]))[0]
    assert (image.shape, image.dtype) == ((32, 32, 3), np.float32)
    # What lossy formats change of one plain colour is less than 4 of 255; a palette is exact to 1.
    assert np.abs(image - [200, 100, 50]).max() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pngs_of_any_kind_become_three_channels(mode: str) -> None:
    image = decode(written(Image.new(mode, (40, 40)), format="PNG"))[0]
    assert image.shape == (32, 32, 3)
    assert (image == 0).all()


def test_a_print_jpeg_becomes_three_channels() -> None:
    assert decode(written(Image.new("CMYK", (40, 40)), format="JPEG"))[0].shape == (32, 32, 3)


def test_pixels_are_means_of_areas() -> None:
    # Left half black, right half white: of four columns two are black; the rows are all equal.
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 64:] = 255
    image = decode(written(Image.fromarray(pixels), format="PNG"), image_size=4)[0]
    assert image[..., 0].tolist() == [[0, 0, 255, 255]] * 4
    # A fine check of single pixels is grey, where interpolation would see its black or its white alone.
    pixels = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = decode(written(Image.fromarray(pixels), format="PNG"), image_size=4)[0]
    assert image[..., 0].tolist() == [[127.5] * 4] * 4


def test_large_jpegs_are_shrunk_while_decoding_and_look_the_same() -> None:
    y, x = np.mgrid[:1000, :600]
    pixels = np.stack([x * 255 // 600, y * 255 // 1000, (x + y) * 255 // 1600], axis=-1).astype(np.uint8)
    shrunk = decode(written(Image.fromarray(pixels), format="JPEG", quality=95))[0]
    whole = decode(written(Image.fromarray(pixels), format="PNG"))[0]
    assert np.abs(shrunk - whole).max() < 8


def test_only_the_first_frame_of_a_gif_is_decoded() -> None:
    frames = [plain(40, 30, colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    content = written(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    width, height, first = measure_image(content)
    assert (width, height) == (40, 30)
    assert len(first) < len(content)
    assert np.abs(decode(content)[0] - [255, 0, 0]).max() < 2


def test_a_gif_frame_larger_than_its_screen_counts_with_its_own_size() -> None:
    content = bytearray(written(plain(40, 30), format="GIF"))
    struct.pack_into("<HH", content, 6, 1, 1)
    assert measure_image(bytes(content))[:2] == (40, 30)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBP"]
)
def test_content_that_is_no_image_raises(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an image|ends too early|no WebP|no frame"):
        measure_image(content)


@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBPVP8X"]),
    st.binary(max_size=400),
)
def test_any_bytes_are_measured_or_refused(magic: bytes, rest: bytes) -> None:
    try:
        width, height, _first = measure_image(magic + rest)
    except ValueError:
        return
    assert width >= 0
    assert height >= 0


@pytest.mark.parametrize("way", WAYS)
def test_an_image_cut_anywhere_is_broken_and_hurts_no_other(way: str, draw: Callable[..., np.ndarray]) -> None:
    whole = written(Image.fromarray(draw("red", "circle", seed=1)), **WAYS[way])
    whole_image = decode(whole)[0]
    for length in np.linspace(4, len(whole) * 0.9, 8).astype(int):
        try:
            found = decode(whole[:length], whole)
        except ValueError:
            continue
        assert list(found) == [1]
        assert np.array_equal(found[1], whole_image)


def read_one(content: bytes, folder: Path, limits: Limits = LIMITS) -> ImageFile:
    (folder / "image").write_bytes(content)
    return read_image("image", root=folder, limits=limits)


def test_a_file_that_is_fine(tmp_path: Path) -> None:
    content = written(plain(50, 40), format="PNG")
    assert read_one(content, tmp_path) == ImageFile("ok", digest_bytes(content), content, 50, 40)


def test_limits_hold_at_the_number_given(tmp_path: Path) -> None:
    content = written(plain(50, 40), format="PNG")
    assert read_one(content, tmp_path, Limits(pixels=2000)).status == "ok"
    assert read_one(content, tmp_path, Limits(pixels=1999)).status == "too large"
    assert read_one(content, tmp_path, Limits(file_bytes=len(content))).status == "ok"
    assert read_one(content, tmp_path, Limits(file_bytes=len(content) - 1)).status == "too large"


def test_a_decompression_bomb_is_never_decoded(tmp_path: Path) -> None:
    # 400 million pixels in under half a megabyte, and two thousand million that the file merely claims.
    assert len(make_png(20_000, 20_000, 20_000)) < 500_000
    for content in (make_png(20_000, 20_000, 20_000), make_png(46_000, 46_000, 1)):
        assert read_one(content, tmp_path) == ImageFile("too large")


@pytest.mark.parametrize("content", [b"", b"a text", b"\x89PNG\r\n\x1a\n", make_png(0, 5, 5)])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    assert read_one(content, tmp_path) == ImageFile("broken")


@pytest.mark.parametrize("path", [None, "", "  ", float("nan")])
def test_articles_without_a_path(tmp_path: Path, path: str | None) -> None:
    assert read_image(path, root=tmp_path, limits=LIMITS) == ImageFile("no path")


@pytest.mark.parametrize("path", ["gone.png", "folder", "pipe", "loop", "file/below", "a\0b", "x" * 5000, "\ud800.png"])
def test_paths_without_a_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert read_image(path, root=tmp_path, limits=LIMITS) == ImageFile("missing file")


def test_paths_may_leave_the_folder_and_be_of_any_script(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    content = written(plain(5, 5), format="PNG")
    for path in ["../above.png", str(tmp_path / "absolute.png"), "Kleid blau, größe 40.png", "青い ドレス👗.png"]:
        (root / path).write_bytes(content)
        assert read_image(path, root=root, limits=LIMITS).status == "ok"


def test_files_come_in_order_and_are_read_as_they_are_needed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(written(plain(5, 1 + number), format="PNG"))
    taken: list[int] = []

    def paths() -> Iterator[str]:
        for number in range(100):
            taken.append(number)
            yield f"{number}.png"

    for number, (path, file) in enumerate(read_images(paths(), root=tmp_path, limits=LIMITS)):
        assert (path, file.height) == (f"{number}.png", 1 + number)
        # At most eight in work, and the one that is given.
        assert len(taken) <= number + 10


def test_what_the_files_raise_is_raised() -> None:
    content = written(plain(5, 5), format="PNG")

    def files() -> Iterator[tuple[int, ImageFile]]:
        for position in range(5):
            yield position, ImageFile("ok", "", content, 5, 5)
        raise LookupError("the table ended")

    given: list[int] = []
    with pytest.raises(LookupError, match="the table ended"):  # noqa: PT012
        for positions, _images in decode_images(files(), image_size=8, batch_size=2):
            given += positions.tolist()
    assert given == [0, 1, 2, 3, 4]


def test_no_files() -> None:
    assert list(decode_images([], image_size=8, batch_size=2)) == []


def test_the_last_batch_is_smaller() -> None:
    content = written(plain(5, 5), format="PNG")
    files = [(position, ImageFile("ok", "", content, 5, 5)) for position in range(5)]
    batches = list(decode_images(files, image_size=8, batch_size=2))
    assert [images.shape for _positions, images in batches] == [[2, 8, 8, 3], [2, 8, 8, 3], [1, 8, 8, 3]]
    assert batches[0][1].dtype == tf.float32


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    check_root(tmp_path)
    with pytest.raises(InputError, match=r"gone: no such folder of images. Give the folder that `image_path`"):
        check_root(tmp_path / "gone")


def test_statuses_are_counted_by_cause() -> None:
    status = np.array(["ok", "broken", "no path", "broken", "ok"], dtype=object)
    assert count_statuses(status, {"broken": ["a.png", "b.png"], "too large": []}) == [
        RowCount("articles", "image: no path", 1),
        RowCount("articles", "image: broken, e.g. 'a.png', 'b.png'", 2),
    ]
    assert count_statuses(np.array([], dtype=object)) == []
