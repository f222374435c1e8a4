"""Sentence embeddings: descriptions through a pretrained encoder, a SavedModel in a local folder."""

from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfrs_fashion.features.embedding_cache import EmbeddingCache, Embeddings, check_finite, digest_bytes, digest_files
from tfrs_fashion.schema import InputError, RowCount

_PROBE = ("dress", "a blue dress with white stripes")


def _load_function(folder: Path) -> Callable[[tf.Tensor], Any]:
    """Returns the `__call__` of the SavedModel in a folder, or else its serving signature."""
    if not (folder / "saved_model.pb").is_file():
        raise InputError(f"{folder}: no SavedModel here (no saved_model.pb). Give the folder of a sentence encoder.")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # A damaged file or an unknown operation: the errors have no common base.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: this SavedModel cannot be loaded ({reason}). Expected an intact one with TensorFlow's own operations only."
        ) from error
    if callable(loaded):
        return loaded
    name = next((name for name in ("serving_default", "default") if name in loaded.signatures), None)
    if name is None:
        raise InputError(
            f"{folder}: this SavedModel has neither `__call__` nor the signature `serving_default`; "
            f"found {sorted(loaded.signatures)}. Save it with one of them."
        )
    # Signatures take keyword arguments only, so the name of the only input is needed.
    inputs = sorted(loaded.signatures[name].structured_input_signature[1])
    if len(inputs) != 1:
        raise InputError(f"{folder}: the signature `{name}` takes {inputs}; expected one tensor of strings.")
    # The lambda keeps `loaded` alive, which owns the weights; a bare signature would not.
    return lambda texts: loaded.signatures[name](**{inputs[0]: texts})


def _load_encoder(folder: Path) -> tuple[Callable[[Sequence[str]], np.ndarray], int]:
    """Returns a function from texts to `[batch, dim]` float32, and `dim`, determined by a trial call."""
    function = _load_function(folder)

    def encode(texts: Sequence[str]) -> np.ndarray:
        # A lone surrogate cannot be encoded as UTF-8.
        encoded = [text.encode("utf-8", "replace") for text in texts]
        try:
            output = function(tf.constant(encoded, tf.string))
        except (TypeError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{folder}: the encoder failed on {len(texts):,} texts, e.g. {texts[0][:60]!r} ({reason})."
            ) from error
        if isinstance(output, dict) and len(output) == 1:
            (output,) = output.values()
        shape = list(output.shape) if isinstance(output, tf.Tensor) else None
        if shape is None or len(shape) != 2 or shape[0] != len(texts) or not output.dtype.is_floating:
            given = f"{output.dtype.name} {shape}" if shape is not None else type(output).__name__
            raise InputError(f"{folder}: {len(texts)} texts gave {given}; expected one float tensor [batch, dim].")
        return tf.cast(output, tf.float32).numpy()

    return encode, encode(_PROBE).shape[1]


def embed_sentences(
    *,
    texts: Iterable[str | None],
    encoder: Path,
    cache: Path,
    max_characters: int = 2_000,
    batch_size: int = 256,
    rows_per_part: int = 4096,
    console: Console | None = None,
) -> Embeddings:
    """Embeds descriptions by a pretrained encoder, each distinct text once.

    Vectors are cached by text, so an interrupted run resumes where it stopped. Only one batch of texts is in memory.

    Args:
        texts: `[num_articles]` descriptions in any script, consumed batch by batch; null where an article has none.
        encoder: Folder of a SavedModel whose `__call__` or serving signature maps `[batch]` strings to `[batch, dim]` floats.
        cache: Folder of the cache, which all encoders may share.
        max_characters: Maximum length of a text; longer texts are truncated and counted.
        batch_size: Number of texts per call of the encoder.
        rows_per_part: Number of vectors per file of the cache, which is the most that a killed run loses.
        console: Console of the progress bar; None shows none.

    Returns:
        The embeddings in the order of `texts`. `status` is `ok`, or `no text` if the text is null or blank.

    Raises:
        InputError: The folder contains no SavedModel, or one with other inputs or outputs, or one that gives NaN.
        RunError: The cache cannot be written.
    """
    encode, dim = _load_encoder(encoder)
    files = [path for path in encoder.rglob("*") if path.is_file()]
    identity = f"sentence {digest_files(files, root=encoder)}"
    keys: list[str] = []
    waiting: dict[str, str] = {}
    num_cut = 0
    total = len(texts) if isinstance(texts, Sized) else None
    bar = Progress(console=console, disable=console is None or not console.is_terminal, transient=True)
    with bar, EmbeddingCache(cache, identity=identity, dim=dim, rows_per_part=rows_per_part) as store:

        def encode_waiting() -> None:
            batch = list(waiting.values())
            vectors = encode(batch)
            check_finite(vectors, batch, where=str(encoder))
            store.append(list(waiting), vectors)
            waiting.clear()

        for text in bar.track(texts, total=total, description="embed descriptions"):
            stripped = text.strip() if isinstance(text, str) else ""
            num_cut += len(stripped) > max_characters
            stripped = stripped[:max_characters]
            key = digest_bytes(stripped.encode("utf-8", "surrogatepass")) if stripped else ""
            keys.append(key)
            if key and store.claim(key):
                waiting[key] = stripped
            if len(waiting) == batch_size:
                encode_waiting()
        if waiting:
            encode_waiting()
        embedding, stored = store.read(keys)
    status = np.where(stored, "ok", "no text").astype(object)
    counts = [
        RowCount("articles", "no description: zero vector", int((~stored).sum())),
        RowCount("articles", f"description cut at {max_characters:,} characters", num_cut),
    ]
    return Embeddings(
        embedding=embedding, status=status, counts=[count for count in counts if count.rows] + store.counts
    )
