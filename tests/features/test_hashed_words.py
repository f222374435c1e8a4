import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features import hashed_words as text_module
from tfrs_fashion.features.hashed_words import hash_texts, hash_words

BUCKETS = 2**30  # so many that two of a handful of words never meet


def rows(*texts: str) -> list[list[int]]:
    found: list[list[int]] = hash_words(texts, num_buckets=BUCKETS).to_list()
    return found


def hashed(*words: str) -> list[int]:
    return [int(value) for value in tf.strings.to_hash_bucket_fast(list(words), BUCKETS)]


def test_words_then_pairs_of_neighbours() -> None:
    assert rows("Blue knitted hat") == [hashed("blue", "knitted", "hat", "blue knitted", "knitted hat")]


def test_one_word_has_no_pair_and_no_word_nothing() -> None:
    assert rows("hat", "", "  ", "—!?", "hat") == [hashed("hat"), [], [], [], hashed("hat")]


def test_no_texts() -> None:
    assert rows() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GRÖN Größe-Ä", ["grön", "größe", "ä", "grön größe", "größe ä"]),
        ("ベージュ 帽子", ["ベージュ", "帽子", "ベージュ 帽子"]),
        ("ПЛАТЬЕ", ["платье"]),
        ("ΣΑΚΆΚΙ", ["σακάκι"]),
        ("501 jeans", ["501", "jeans", "501 jeans"]),
        ("hat\t/\nscarf", ["hat", "scarf", "hat scarf"]),
        ("👗dress", ["dress"]),
        ("50 OZ", ["50", "oz", "50 oz"]),
    ],
)
def test_letters_and_digits_of_any_script_make_words(text: str, words: list[str]) -> None:
    assert rows(text) == [hashed(*words)]


@pytest.mark.parametrize("word", ["हिन्दी", "ไก่", unicodedata.normalize("NFD", "grön")])
def test_marks_do_not_part_a_word(word: str) -> None:
    # Vowel signs and accents written as marks of their own belong to their letters.
    assert rows(word) == [hashed(word)]


def test_buckets_are_within_bounds() -> None:
    values = hash_words([f"word{number} other" for number in range(200)], num_buckets=7).flat_values.numpy()
    assert values.min() >= 0
    assert values.max() < 7
    assert len(set(values.tolist())) == 7


def test_a_single_bucket() -> None:
    assert hash_words(["a b"], num_buckets=1).to_list() == [[0, 0, 0]]


TEXTS = ["Blue knitted hat", "", "hat", "—", "ПЛАТЬЕ 2", "", "a b c d e"]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_texts_are_hashed_in_parts_as_in_one(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(text_module, "_BATCH", batch)
    found = hash_texts(TEXTS, num_buckets=1000)
    expected = hash_words(TEXTS, num_buckets=1000)
    assert found.values.tolist() == expected.flat_values.numpy().tolist()
    # Words and pairs: 3 + 2, 1, 2 + 1 and 5 + 4.
    assert found.row_splits.tolist() == [0, 5, 5, 6, 6, 9, 9, 18]
    assert found.values.dtype == np.int32
    assert found.row_splits.dtype == np.int64
    assert found.num_buckets == 1000


def test_a_text_that_comes_again_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(texts: list[str], *, num_buckets: int) -> tf.RaggedTensor:
        asked.extend(texts)
        return hash_words(texts, num_buckets=num_buckets)

    monkeypatch.setattr(text_module, "_BATCH", 2)
    monkeypatch.setattr(text_module, "hash_words", counted)
    texts = ["hat", None, "red hat", "hat", "", "red hat", "shoe"]
    found = hash_texts((text for text in texts), num_buckets=1000)
    assert asked == ["hat", "", "red hat", "shoe"]
    expected = hash_words([text or "" for text in texts], num_buckets=1000)
    assert found.values.tolist() == expected.flat_values.numpy().tolist()
    assert found.row_splits.tolist() == [0, 1, 1, 4, 5, 5, 8, 9]
    first = found.first(3)
    assert first.values.tolist() == found.values[:4].tolist()
    assert first.row_splits.tolist() == [0, 1, 1, 4]
    assert first.num_buckets == 1000


def test_no_texts_and_texts_without_words() -> None:
    for texts, splits in (([], [0]), (["", "!"], [0, 0, 0])):
        found = hash_texts(texts, num_buckets=4)
        assert found.values.tolist() == []
        assert found.values.dtype == np.int32
        assert found.row_splits.tolist() == splits


def test_a_megabyte_is_a_text_like_any_other() -> None:
    # Of a megabyte the first 10,000 characters are read: 2,500 words and 2,499 pairs of them.
    found = hash_texts(["hat " * 250_000, "hat"], num_buckets=2**20)
    assert found.row_splits.tolist() == [0, 4_999, 5_000]
    assert set(found.values[:2_500].tolist()) == {int(found.values[-1])}
    # A single word of a megabyte, and one that is no text in any script.
    assert hash_texts(["x" * 10**6, "\ufffd\x00"], num_buckets=8).row_splits.tolist() == [0, 1, 1]
