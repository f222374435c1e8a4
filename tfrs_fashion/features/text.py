"""Text: words and neighbouring pairs of words, hashed into buckets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrs_fashion.schema import MAX_DESCRIPTION

_BATCH = 8192


@dataclass(frozen=True)
class HashedWords:
    """The hashed words of all texts, flat.

    Attributes:
        values: `[num_values]` int32 in `[0, num_buckets)`.
        row_splits: `[num_texts + 1]` int64, where the words of each text begin and end.
        num_buckets: Hash buckets.
    """

    values: np.ndarray
    row_splits: np.ndarray
    num_buckets: int


def hash_words(texts: Sequence[str], *, num_buckets: int) -> tf.RaggedTensor:
    """Splits texts into lower-case words and hashes each word and each pair of neighbours.

    Letters, marks and digits of any script make words; everything else separates them. What follows the first
    `MAX_DESCRIPTION` characters is not read.

    Args:
        texts: `[num_texts]`; empty ones give no words.
        num_buckets: Hash buckets.

    Returns:
        `[num_texts, (words and pairs)]` ragged int64 in `[0, num_buckets)`.
    """
    # Cut before TensorFlow sees them: a text of a megabyte has a hundred thousand words.
    lowered = tf.strings.lower(tf.constant([text[:MAX_DESCRIPTION] for text in texts], tf.string), encoding="utf-8")
    words = tf.strings.split(tf.strings.strip(tf.strings.regex_replace(lowered, r"[^\p{L}\p{M}\p{N}]+", " ")))
    pairs = tf.strings.join([words[:, :-1], words[:, 1:]], separator=" ")
    return tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, tf.concat([words, pairs], axis=1), num_buckets)


def hash_texts(texts: Sequence[str], *, num_buckets: int) -> HashedWords:
    """Hashes texts a batch at a time, so that hundreds of thousands of them need no more memory than their words do.

    Args:
        texts: `[num_texts]`.
        num_buckets: Hash buckets.
    """
    values, lengths = [], []
    for start in range(0, len(texts), _BATCH):
        words = hash_words(texts[start : start + _BATCH], num_buckets=num_buckets)
        values.append(words.flat_values.numpy().astype(np.int32))
        lengths.append(words.row_lengths().numpy())
    row_splits = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]))])
    return HashedWords(np.concatenate([np.zeros(0, np.int32), *values]), row_splits, num_buckets)
