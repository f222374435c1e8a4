"""Words and pairs of neighbouring words of texts, hashed into buckets."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrs_fashion.schema import MAX_DESCRIPTION

_BATCH = 8192


@dataclass(frozen=True)
class HashedWords:
    """The hashed words of all texts, stored flat.

    Attributes:
        values: `[num_values]` int32 in `[0, num_buckets)`.
        row_splits: `[num_texts + 1]` int64, where the words of each text begin and end.
        num_buckets: Number of hash buckets.
    """

    values: np.ndarray
    row_splits: np.ndarray
    num_buckets: int

    def first(self, num_texts: int) -> "HashedWords":
        """Returns the hashed words of the first `num_texts` texts."""
        return HashedWords(
            self.values[: self.row_splits[num_texts]], self.row_splits[: num_texts + 1], self.num_buckets
        )


def hash_words(texts: Sequence[str], *, num_buckets: int) -> tf.RaggedTensor:
    """Splits texts into lower-case words and hashes each word and each pair of neighbouring words.

    Words consist of letters, marks and digits of any script; everything else separates them. Only the first
    `MAX_DESCRIPTION` characters of a text are read.

    Args:
        texts: `[num_texts]` str; empty texts have no words.
        num_buckets: Number of hash buckets.

    Returns:
        `[num_texts, (words and pairs)]` ragged int64 in `[0, num_buckets)`.
    """
    # Truncated before TensorFlow splits them: a text of a megabyte would have a hundred thousand words.
    lowered = tf.strings.lower(tf.constant([text[:MAX_DESCRIPTION] for text in texts], tf.string), encoding="utf-8")
    words = tf.strings.split(tf.strings.strip(tf.strings.regex_replace(lowered, r"[^\p{L}\p{M}\p{N}]+", " ")))
    pairs = tf.strings.join([words[:, :-1], words[:, 1:]], separator=" ")
    return tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, tf.concat([words, pairs], axis=1), num_buckets)


def hash_texts(texts: Iterable[str | None], *, num_buckets: int) -> HashedWords:
    """Hashes texts in batches, each distinct text once, so that memory holds their hashed words and one batch of texts.

    Args:
        texts: `[num_texts]` str or null, consumed batch by batch; null texts have no words.
        num_buckets: Number of hash buckets.
    """
    place: dict[bytes, int] = {}
    of_text: list[int] = []
    waiting: list[str] = []
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]

    def hash_waiting() -> None:
        words = hash_words(waiting, num_buckets=num_buckets)
        values.append(words.flat_values.numpy().astype(np.int32))
        lengths.append(words.row_lengths().numpy())
        waiting.clear()

    for text in texts:
        cut = (text or "")[:MAX_DESCRIPTION]
        digest = hashlib.blake2b(cut.encode(), digest_size=16).digest()
        if digest not in place:
            place[digest] = len(place)
            waiting.append(cut)
        of_text.append(place[digest])
        if len(waiting) == _BATCH:
            hash_waiting()
    hash_waiting()
    distinct = np.array(of_text, np.int64)
    length = np.concatenate(lengths)
    start, length = (np.cumsum(length) - length)[distinct], length[distinct]
    row_splits = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    # The position of each word of each text among the words of the distinct texts.
    position = np.repeat(start - row_splits[:-1], length) + np.arange(row_splits[-1])
    return HashedWords(np.concatenate(values)[position], row_splits, num_buckets)
