"""Text: words and neighbouring pairs of words, hashed into buckets."""

from collections.abc import Sequence

import tensorflow as tf


def hash_words(texts: Sequence[str], *, num_buckets: int) -> tf.RaggedTensor:
    """Splits texts into lower-case words and hashes each word and each pair of neighbours.

    Letters, marks and digits of any script make words; everything else separates them.

    Args:
        texts: `[num_texts]`; empty ones give no words.
        num_buckets: Hash buckets.

    Returns:
        `[num_texts, (words and pairs)]` ragged int64 in `[0, num_buckets)`.
    """
    lowered = tf.strings.lower(tf.constant(list(texts), tf.string), encoding="utf-8")
    words = tf.strings.split(tf.strings.strip(tf.strings.regex_replace(lowered, r"[^\p{L}\p{M}\p{N}]+", " ")))
    pairs = tf.strings.join([words[:, :-1], words[:, 1:]], separator=" ")
    return tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, tf.concat([words, pairs], axis=1), num_buckets)
