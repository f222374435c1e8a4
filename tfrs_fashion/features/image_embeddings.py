"""Images as embeddings: each article's image through a backbone, computed once for each content."""

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

# Part of what identifies a vector: raise it when pixels reach the backbone in another way.
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
    """Embeds the image of each article; what is wrong with one is counted and flagged, never fatal.

    Vectors are cached by the content of the file: equal images are computed once, and work that was stopped goes on
    where it ended. Only a few files are in memory at once.

    Args:
        paths: One for each article, relative to `root` or absolute; null where it has none. Consumed as work goes on,
            in another thread.
        root: The folder of images.
        backbone: With the file of its weights.
        cache: A folder, shared by all backbones.
        limits: What is too large to be decoded.
        batch_size: Images a call of the backbone.
        rows_per_part: Vectors of a part of the cache; a kill loses at most so many.
        console: Where the progress bar is shown.

    Returns:
        In the order of `paths`. `status` is `ok`, `no path`, `missing file` (or one that may not be read), `broken`
        (not an image, or cut short) or `too large`.

    Raises:
        InputError: `root` is no folder, the weights do not fit, or they give NaN.
        RunError: The cache cannot be written.
    """
    check_root(root)
    limits = limits or Limits()
    model = load_backbone(backbone)
    # Of their values: a file of the same ones, saved again, holds other names.
    weights = digest_bytes(*(weight.tobytes() for weight in model.get_weights()))
    identity = (
        f"image {_PIPELINE_VERSION} {backbone.network} alpha={backbone.alpha} size={backbone.image_size} "
        f"weights={weights}"
    )
    encode = tf.function(
        lambda images: model(images, training=False), input_signature=[model.inputs[0].type_spec], autograph=False
    )
    keys: list[str] = []
    found: list[str] = []
    samples: dict[str, list[str]] = defaultdict(list)
    decoding: dict[int, str] = {}
    total = len(paths) if isinstance(paths, Sized) else None
    bar = Progress(console=console, disable=console is None or not console.is_terminal, transient=True)
    dim = int(model.output_shape[-1])
    with bar, EmbeddingCache(cache, identity=identity, dim=dim, rows_per_part=rows_per_part) as store:
        task = bar.add_task("embed images", total=total)

        def wanted() -> Iterator[tuple[int, ImageFile]]:
            for position, (path, file) in enumerate(read_images(paths, root=root, limits=limits)):
                keys.append(file.digest)
                found.append(file.status)
                bar.advance(task)
                if file.status == "ok" and store.claim(file.digest):
                    decoding[position] = str(path)
                    yield position, file
                elif file.status != "ok" and path and len(samples[file.status]) < _NUM_SAMPLES:
                    samples[file.status].append(str(path))

        for positions, images in decode_images(wanted(), image_size=backbone.image_size, batch_size=batch_size):
            vectors = encode(images).numpy()
            names = [decoding.pop(position) for position in positions.tolist()]
            check_finite(vectors, names, where=str(backbone.weights))
            store.append([keys[position] for position in positions], vectors)
        embedding, stored = store.read(keys)
    status = np.array(found, dtype=object)
    status[(status == "ok") & ~stored] = "broken"
    # What was to be decoded and did not come out.
    samples["broken"] = [*samples["broken"], *decoding.values()][:_NUM_SAMPLES]
    return Embeddings(embedding=embedding, status=status, counts=count_statuses(status, samples) + store.counts)
