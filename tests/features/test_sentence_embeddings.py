import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features import sentence_embeddings
from tfrs_fashion.features.sentence_embeddings import embed_sentences
from tfrs_fashion.schema import InputError, RowCount

STRINGS = tf.TensorSpec([None], tf.string)


def toy_vectors(texts: tf.Tensor) -> tf.Tensor:
    """Length in characters, length in bytes, and 1."""
    lengths = [tf.strings.length(texts, unit="UTF8_CHAR"), tf.strings.length(texts), tf.ones_like(texts, tf.int32)]
    return tf.cast(tf.stack(lengths, axis=1), tf.float32)


def save(
    folder: Path,
    function: Callable[..., object],
    *,
    call: bool = False,
    signature: str | None = None,
    specs: Sequence[tf.TensorSpec] = (STRINGS,),
) -> Path:
    module = tf.Module()
    traced = tf.function(function, input_signature=list(specs))
    if call:
        module.__call__ = traced
    else:
        module.embed = traced
    tf.saved_model.save(module, str(folder), signatures={signature: traced} if signature else None)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("encoder") / "toy", toy_vectors, call=True)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The batches that the encoder was given, without the trial that finds its width."""
    batches: list[list[str]] = []
    load = sentence_embeddings._load_encoder

    def load_counted(folder: Path) -> tuple[Callable[[Sequence[str]], np.ndarray], int]:
        encode, dim = load(folder)
        return lambda texts: (batches.append(list(texts)), encode(texts))[1], dim

    monkeypatch.setattr(sentence_embeddings, "_load_encoder", load_counted)
    return batches


def test_vectors_come_in_the_order_of_texts(encoder: Path, tmp_path: Path, encoded: list[list[str]]) -> None:
    texts = ["größe", "青いドレス👗", None, "dress", "", " dress\n", "مرحبا", "\t ", "dress", float("nan")]
    found = embed_sentences(texts=texts, encoder=encoder, cache=tmp_path)
    dress, none = [5, 5, 1], [0, 0, 0]
    expected = [[5, 7, 1], [6, 19, 1], none, dress, none, dress, [5, 10, 1], none, dress, none]
    assert found.embedding.dtype == np.float32
    assert found.embedding.tolist() == expected
    assert found.status.tolist() == ["no text" if row == none else "ok" for row in expected]
    assert found.counts == [RowCount("articles", "no description: zero vector", 4)]
    # Equal texts are encoded once.
    assert encoded == [["größe", "青いドレス👗", "dress", "مرحبا"]]


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (lambda texts: {"embeddings": toy_vectors(texts)}, "serving_default"),
        (lambda texts: {"output": toy_vectors(texts)}, "default"),
        (lambda texts: {"output": tf.cast(toy_vectors(texts), tf.float16)}, "serving_default"),
    ],
)
def test_signatures_serve_too(tmp_path: Path, function: Callable[..., object], signature: str) -> None:
    folder = save(tmp_path / "encoder", function, signature=signature)
    found = embed_sentences(texts=["ab", "c"], encoder=folder, cache=tmp_path / "cache")
    assert found.embedding.tolist() == [[2, 2, 1], [1, 1, 1]]


def test_a_second_time_nothing_is_encoded(encoder: Path, tmp_path: Path, encoded: list[list[str]]) -> None:
    texts = [f"text {number}" for number in range(100)]
    first = embed_sentences(texts=texts, encoder=encoder, cache=tmp_path, batch_size=30)
    assert list(map(len, encoded)) == [30, 30, 30, 10]
    encoded.clear()
    again = embed_sentences(texts=reversed(texts), encoder=encoder, cache=tmp_path)
    assert encoded == []
    assert np.array_equal(again.embedding[::-1], first.embedding)


def test_what_was_stopped_goes_on_where_it_ended(encoder: Path, tmp_path: Path, encoded: list[list[str]]) -> None:
    def stopped() -> Iterator[str]:
        yield from (f"text {number}" for number in range(55))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_sentences(texts=stopped(), encoder=encoder, cache=tmp_path, batch_size=10)
    assert sum(map(len, encoded)) == 50
    encoded.clear()
    found = embed_sentences(
        texts=[f"text {number}" for number in range(100)], encoder=encoder, cache=tmp_path, batch_size=10
    )
    # Five were read and not encoded yet; 45 had not been read.
    assert sum(map(len, encoded)) == 50
    assert (found.status == "ok").all()


def test_a_megabyte_of_text_is_cut_and_counted(encoder: Path, tmp_path: Path, encoded: list[list[str]]) -> None:
    texts = ["ä" * 1_000_000, "ä" * 2_000, "ä" * 2_001]
    found = embed_sentences(texts=texts, encoder=encoder, cache=tmp_path)
    assert found.embedding.tolist() == [[2_000, 4_000, 1]] * 3
    assert found.counts == [RowCount("articles", "description cut at 2,000 characters", 2)]
    # Cut to the same text, they are one.
    assert list(map(len, encoded)) == [1]
    short = embed_sentences(texts=texts, encoder=encoder, cache=tmp_path, max_characters=7)
    assert short.embedding.tolist() == [[7, 14, 1]] * 3


def test_strange_characters(encoder: Path, tmp_path: Path) -> None:
    texts = ["\ud800", "a\0b", "\u202edress", "e\u0301"]
    found = embed_sentences(texts=texts, encoder=encoder, cache=tmp_path)
    # Half of a pair becomes a question mark; the rest is left as it is.
    assert found.embedding.tolist() == [[1, 1, 1], [3, 3, 1], [6, 8, 1], [2, 3, 1]]


def test_many_texts_are_streamed(encoder: Path, tmp_path: Path) -> None:
    num_texts, characters = 50_000, 2_000

    def texts() -> Iterator[str]:
        for number in range(num_texts):
            yield f"{number} ".ljust(characters, "x")

    tracemalloc.start()
    try:
        found = embed_sentences(texts=texts(), encoder=encoder, cache=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.embedding == [2_000, 2_000, 1]).all()
    assert len(found.embedding) == num_texts
    # All texts would be 100 MB; their keys, 32 digits each, are most of what is held.
    assert num_texts * characters == 100_000_000
    assert peak < 40_000_000


def test_texts_are_taken_as_they_are_encoded(encoder: Path, tmp_path: Path, encoded: list[list[str]]) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for number in range(1_000):
            assert taken - sum(map(len, encoded)) < 100
            taken += 1
            yield f"text {number}"

    embed_sentences(texts=texts(), encoder=encoder, cache=tmp_path, batch_size=100)
    assert taken == 1_000


def test_another_encoder_shares_nothing(encoder: Path, tmp_path: Path) -> None:
    twice = save(tmp_path / "twice", lambda texts: 2 * toy_vectors(texts), call=True)
    for folder, expected in ((encoder, [5, 5, 1]), (twice, [10, 10, 2]), (encoder, [5, 5, 1])):
        found = embed_sentences(texts=["dress"], encoder=folder, cache=tmp_path / "cache")
        assert found.embedding.tolist() == [expected]


def test_no_texts(encoder: Path, tmp_path: Path) -> None:
    found = embed_sentences(texts=[], encoder=encoder, cache=tmp_path)
    assert (found.embedding.shape, found.status.shape, found.counts) == ((0, 3), (0,), [])


def test_encoder_that_gives_nan_raises(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "encoder",
        lambda texts: tf.where(tf.strings.regex_full_match(texts, "bad.*")[:, None], np.nan, toy_vectors(texts)),
        call=True,
    )
    with pytest.raises(
        InputError, match=r"encoder: 2 of 4 vectors of a batch hold NaN or infinity, e.g. for 'bad', 'bad 2'"
    ):
        embed_sentences(texts=["good", "bad", "fine", "bad 2"], encoder=folder, cache=tmp_path / "cache")


def test_folder_without_an_encoder_raises(tmp_path: Path) -> None:
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(InputError, match=rf"{re.escape(str(folder))}: no SavedModel here \(no saved_model.pb\)"):
            embed_sentences(texts=["a"], encoder=folder, cache=tmp_path / "cache")
    (tmp_path / "saved_model.pb").write_bytes(b"hello")
    with pytest.raises(
        InputError, match=r"this SavedModel cannot be loaded \(.*\). Expected an intact one with TensorFlow's own op"
    ):
        embed_sentences(texts=["a"], encoder=tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: tf.strings.length(texts), r"2 texts gave int32 \[2\]; expected one float tensor \[batch, dim\]"),
        (lambda texts: tf.ones([1, 3]), r"2 texts gave float32 \[1, 3\]; expected one float tensor"),
        (lambda texts: {"a": toy_vectors(texts), "b": toy_vectors(texts)}, r"2 texts gave dict; expected one float"),
        (
            lambda texts: tf.debugging.check_numerics(toy_vectors(texts) / 0.0, "I refuse"),
            r"the encoder failed on 2 texts, e.g. 'dress' \(.*I refuse",
        ),
    ],
)
def test_encoder_with_other_outputs_raises(tmp_path: Path, function: Callable[..., object], message: str) -> None:
    folder = save(tmp_path / "encoder", function, call=True)
    with pytest.raises(InputError, match=message):
        embed_sentences(texts=["a"], encoder=folder, cache=tmp_path / "cache")


def test_encoder_with_other_inputs_raises(tmp_path: Path) -> None:
    numbers = save(tmp_path / "numbers", lambda x: x, call=True, specs=[tf.TensorSpec([None, 2], tf.float32)])
    with pytest.raises(InputError, match=r"numbers: the encoder failed on 2 texts, e.g. 'dress'"):
        embed_sentences(texts=["a"], encoder=numbers, cache=tmp_path / "cache")
    specs = [tf.TensorSpec([None], tf.string, name=name) for name in ("first", "second")]
    two = save(
        tmp_path / "two", lambda first, second: {"x": toy_vectors(first)}, signature="serving_default", specs=specs
    )
    with pytest.raises(InputError, match=r"the signature `serving_default` takes \['first', 'second'\]; expected one"):
        embed_sentences(texts=["a"], encoder=two, cache=tmp_path / "cache")
    other = save(tmp_path / "other", lambda texts: {"x": toy_vectors(texts)}, signature="encode")
    with pytest.raises(InputError, match=r"neither `__call__` nor the signature `serving_default`; found \['encode'\]"):
        embed_sentences(texts=["a"], encoder=other, cache=tmp_path / "cache")
