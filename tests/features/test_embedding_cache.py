import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.embedding_cache import EmbeddingCache, check_finite, digest_bytes, digest_files
from tfrs_fashion.schema import InputError, RowCount, RunError

DIM = 3
# Writes keys first, first + 1, …, four at a time, each with the vector that `vectors_of` expects of it.
WRITER = """
import sys, numpy as np
from pathlib import Path
from tfrs_fashion.features.embedding_cache import EmbeddingCache
folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with EmbeddingCache(folder, identity="toy", dim=3, rows_per_part=10) as cache:
    for start in range(first, last, 4):
        rows = range(start, min(start + 4, last))
        cache.append([f"k{row}" for row in rows], np.array([[row, 2 * row, -row] for row in rows], np.float32))
"""


def vectors_of(rows: list[int]) -> np.ndarray:
    return np.array([[row, 2 * row, -row] for row in rows], np.float32).reshape(-1, DIM)


def keys_of(rows: list[int]) -> list[str]:
    return [f"k{row}" for row in rows]


def open_cache(folder: Path, *, identity: str = "toy", dim: int = DIM, rows_per_part: int = 10) -> EmbeddingCache:
    return EmbeddingCache(folder, identity=identity, dim=dim, rows_per_part=rows_per_part)


def fill(folder: Path, rows: list[int], *, identity: str = "toy") -> EmbeddingCache:
    with open_cache(folder, identity=identity) as cache:
        for start in range(0, len(rows), 5):
            part = rows[start : start + 5]
            cache.append(keys_of(part), vectors_of(part))
    return cache


def parts_of(cache: EmbeddingCache) -> list[Path]:
    return sorted(cache.folder.glob("*.parquet"))


def start_writer(folder: Path, first: int, last: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(first), str(last)])


def test_reads_what_was_written_in_the_order_asked(tmp_path: Path) -> None:
    fill(tmp_path, list(range(25)))
    cache = open_cache(tmp_path)
    assert len(cache) == 25
    vectors, stored = cache.read(["k24", "unknown", "k3", "k24", "k0"])
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[24, 48, -24], [0, 0, 0], [3, 6, -3], [24, 48, -24], [0, 0, 0]]
    assert stored.tolist() == [True, False, True, True, True]
    assert cache.counts == []


def test_parts_are_of_the_size_asked_for_and_any_reader_opens_them(tmp_path: Path) -> None:
    cache = fill(tmp_path, list(range(25)))
    frames = [pd.read_parquet(path) for path in parts_of(cache)]
    assert sorted(map(len, frames)) == [5, 10, 10]
    joined = pd.concat(frames).set_index("key")["vector"]
    assert joined["k7"].tolist() == [7, 14, -7]


def test_nothing_asked_nothing_stored(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        vectors, stored = cache.read([])
        assert (vectors.shape, stored.shape) == ((0, DIM), (0,))
        assert cache.read(["a"])[1].tolist() == [False]
    assert parts_of(cache) == []


def test_a_key_is_claimed_once(tmp_path: Path) -> None:
    fill(tmp_path, [1])
    cache = open_cache(tmp_path)
    assert [cache.claim(key) for key in ["k1", "k2", "k2", "k3"]] == [False, True, False, True]


def test_what_is_in_memory_can_be_read_and_is_written_when_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_cache(tmp_path) as cache:  # noqa: PT012
        cache.append(["k1"], vectors_of([1]))
        assert cache.read(["k1"])[0].tolist() == [[1, 2, -1]]
        cache.append(["k2"], vectors_of([2]))
        raise KeyError("stop")
    assert open_cache(tmp_path).read(["k2"])[0].tolist() == [[2, 4, -2]]


def test_only_parts_that_hold_a_key_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, list(range(40)))
    cache = open_cache(tmp_path)
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), original(path))[1])
    cache.read(["k11", "k12"])
    assert len(read) == 1


@pytest.mark.parametrize(("identity", "dim"), [("toy 2", DIM), ("toy", DIM + 1)])
def test_another_encoder_never_mixes(tmp_path: Path, identity: str, dim: int) -> None:
    first = fill(tmp_path, list(range(10)))
    other = open_cache(tmp_path, identity=identity, dim=dim)
    assert len(other) == 0
    # Not even where somebody copies the files over.
    (other.folder / parts_of(first)[0].name).write_bytes(parts_of(first)[0].read_bytes())
    other = open_cache(tmp_path, identity=identity, dim=dim)
    assert len(other) == 0
    assert [count.rows for count in other.counts] == [10]


@pytest.mark.parametrize("damage", ["empty", "cut", "longer"])
def test_a_damaged_part_is_named_set_aside_and_computed_again(tmp_path: Path, damage: str) -> None:
    cache = fill(tmp_path, list(range(30)))
    path = parts_of(cache)[1]
    lost = pd.read_parquet(path)["key"].tolist()
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[:-5], "longer": content + b"\0"}[damage])

    with open_cache(tmp_path) as again:
        rule = f"in 1 damaged part(s) of {again.folder}, computed again where needed: {path.name}"
        assert again.counts == [RowCount("embedding cache", rule, 10)]
        assert [key for key in keys_of(list(range(30))) if again.claim(key)] == sorted(
            lost, key=lambda key: int(key[1:])
        )
        again.append(lost, vectors_of([int(key[1:]) for key in lost]))
    whole = open_cache(tmp_path)
    assert whole.counts == []
    assert whole.read(keys_of(list(range(30))))[0].tolist() == vectors_of(list(range(30))).tolist()
    assert [path.suffix for path in sorted(whole.folder.iterdir())].count(".damaged") == 1


def test_a_changed_bit_anywhere_is_found(tmp_path: Path) -> None:
    cache = fill(tmp_path, list(range(10)))
    (path,) = parts_of(cache)
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        again = open_cache(tmp_path)
        assert (len(again), [count.rows for count in again.counts]) == (0, [10]), place
    path.write_bytes(content)
    assert len(open_cache(tmp_path)) == 10


def test_a_part_of_a_strange_name_counts_as_damaged(tmp_path: Path) -> None:
    folder = open_cache(tmp_path).folder
    (folder / "mine.parquet").write_bytes(b"hello")
    assert [count.rows for count in open_cache(tmp_path).counts] == [0]


def test_a_part_that_goes_while_it_is_needed(tmp_path: Path) -> None:
    cache = fill(tmp_path, [1])
    parts_of(cache)[0].unlink()
    with pytest.raises(RunError, match=r"this part of the cache was changed or removed during the run. Run the same"):
        cache.read(["k1"])


def test_process_killed_at_any_moment_leaves_a_usable_cache(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, 0, 10_000_000)
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("*/*.parquet"))) < 5:
        assert time.monotonic() < deadline
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    cache = open_cache(tmp_path)
    assert cache.counts == []
    # Parts hold twelve rows: batches of four until ten have come together.
    assert len(cache) == 12 * len(parts_of(cache)) >= 60
    rows = list(range(len(cache)))
    vectors, stored = cache.read(keys_of(rows))
    assert stored.all()
    assert vectors.tolist() == vectors_of(rows).tolist()


def test_two_writers_at_once(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, 0, 3_000), start_writer(tmp_path, 1_000, 4_000)]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0]
    cache = open_cache(tmp_path)
    assert cache.counts == []
    assert len(cache) == 4_000
    assert cache.read(keys_of(list(range(4_000))))[0].tolist() == vectors_of(list(range(4_000))).tolist()
    assert list(cache.folder.glob("*.partial")) == []


def test_what_a_kill_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    folder = open_cache(tmp_path).folder
    old, young = folder / "old.partial", folder / "young.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_cache(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_unusable_cache_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot keep embeddings here \(.*\). Choose another folder"):
        open_cache(tmp_path / "file")


def test_full_disk_raises_and_keeps_stored_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fill(tmp_path, [1])

    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache.append(["k2"], vectors_of([2]))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot write embeddings \(No space left.*the 1 embeddings stored before"):
            cache.flush()
    assert list(cache.folder.glob("*.partial")) == []
    cache.flush()
    assert len(open_cache(tmp_path)) == 2


def test_append_of_another_shape_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`vectors` has shape \[2, 3\], expected \[1, 3\]"):
        open_cache(tmp_path).append(["k1"], vectors_of([1, 2]))


def test_vectors_with_nan_raise() -> None:
    vectors = np.zeros((7, 2), np.float32)
    check_finite(vectors, [""] * 7, where="encoder")
    vectors[[0, 2, 3, 4, 5, 6], 1] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan]
    with pytest.raises(InputError) as caught:
        check_finite(vectors, ["a" * 99, "b", "c", "d", "e", "f", "g"], where="my encoder")
    message = str(caught.value)
    assert message.startswith("my encoder: 6 of 7 vectors of a batch hold NaN or infinity, e.g. for")
    assert f"{'a' * 60!r}, 'c', 'd', 'e', 'f'." in message


def test_digest_of_files_depends_on_names_and_content(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        folder = tmp_path / digest_bytes(repr(files).encode())
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        return digest_files(list(folder.iterdir()), root=folder)

    digests = [digest(a="1", b="2"), digest(a="2", b="1"), digest(a="12", b=""), digest(a="1"), digest(c="1")]
    assert len(set(digests)) == 5
    # Where the folder lies does not matter, and neither does the order.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in (("b", "2"), ("a", "1")):
        (copy / name).write_text(content)
    assert digest_files([copy / "b", copy / "a"], root=copy) == digests[0]
