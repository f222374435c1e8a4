"""Image embeddings: each article's image through a backbone, each distinct file once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfrs_fashion.features.backbone import Backbone, load_backbone
from tfrs_fashion.features.embedding_cache import EmbeddingCache, Embeddings, check_finite, digest_bytes
from tfrs_fashion.features.image_files import (
    ImageFile,
    Limits,
    check_root,
    count_statuses,
    decode_images,
    read_images,
)

# Part of the cache key. Increase it when the preprocessing of pixels changes, so that cached vectors are not reused.
_PIPELINE_VERSION = 1
_NUM_SAMPLES = 5


def embed_images(
    *,
    paths: Iterable[str | None],
    root: Path,
    backbone: Backbone,
    cache: Path,
    limits: Limits | None = None,
    batch_size: int = 32,
    rows_per_part: int = 1024,
    console: Console | None = None,
) -> Embeddings:
    """Embeds the image of each article. An unusable image is counted and gets a zero vector; it never stops the run.

    Vectors are cached by the content of the file: equal images are computed once, and an interrupted run resumes where it
    stopped. Only a few files are in memory at a time.

    Args:
        paths: `[num_articles]` paths, relative to `root` or absolute; null where an article has no image. Consumed in another
            thread, as the images are needed.
        root: The folder of images.
        backbone: The network, with the file of its weights.
        cache: Folder of the cache, which all backbones may share.
        limits: The limits above which an image is not decoded.
        batch_size: Number of images per call of the backbone.
        rows_per_part: Number of vectors per file of the cache, which is the most that a killed run loses.
        console: Console of the progress bar; None shows none.

    Returns:
        The embeddings in the order of `paths`. `status` is `ok`, `no path`, `missing file` (or not readable), `broken` (not an
        image, or truncated) or `too large`.

    Raises:
        InputError: `root` is not a folder, or the weights do not fit the network or give NaN.
        RunError: The cache cannot be written.
    """
    check_root(root)
    limits = limits or Limits()
    model = load_backbone(backbone)
    # A digest of the values, not of the file: the same weights saved again have other names in it.
    weights = digest_bytes(*(weight.tobytes() for weight in model.get_weights()))
    identity = (
        f"image {_PIPELINE_VERSION} {backbone.network} alpha={backbone.alpha} size={backbone.image_size} "
        f"weights={weights}"
    )
    encode = tf.function(
        lambda images: model(images, training=False), input_signature=[model.inputs[0].type_spec], autograph=False
    )
    keys: list[str] = []
    statuses: list[str] = []
    samples: dict[str, list[str]] = defaultdict(list)
    decoding: dict[int, str] = {}
    total = len(paths) if isinstance(paths, Sized) else None
    bar = Progress(console=console, disable=console is None or not console.is_terminal, transient=True)
    dim = int(model.output_shape[-1])
    with bar, EmbeddingCache(cache, identity=identity, dim=dim, rows_per_part=rows_per_part) as store:
        task = bar.add_task("embed images", total=total)

        def unseen_files() -> Iterator[tuple[int, ImageFile]]:
            for position, (path, file) in enumerate(read_images(paths, root=root, limits=limits)):
                keys.append(file.digest)
                statuses.append(file.status)
                bar.advance(task)
                if file.status == "ok" and store.claim(file.digest):
                    decoding[position] = str(path)
                    yield position, file
                elif file.status != "ok" and path and len(samples[file.status]) < _NUM_SAMPLES:
                    samples[file.status].append(str(path))

        for positions, images in decode_images(unseen_files(), image_size=backbone.image_size, batch_size=batch_size):
            vectors = encode(images).numpy()
            names = [decoding.pop(position) for position in positions.tolist()]
            check_finite(vectors, names, where=str(backbone.weights))
            store.append([keys[position] for position in positions], vectors)
        embedding, stored = store.read(keys)
    status = np.array(statuses, dtype=object)
    status[(status == "ok") & ~stored] = "broken"
    # The files left in `decoding` could not be decoded.
    samples["broken"] = [*samples["broken"], *decoding.values()][:_NUM_SAMPLES]
    return Embeddings(embedding=embedding, status=status, counts=count_statuses(status, samples) + store.counts)
