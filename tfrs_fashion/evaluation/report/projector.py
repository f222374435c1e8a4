"""Embeddings in the format of TensorBoard's projector: vectors, labels and thumbnails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

# Side of a thumbnail in pixels, and the maximum number of thumbnails in a sprite image that browsers still load.
SPRITE_SIDE, MAX_SPRITES = 48, 2500


@dataclass(frozen=True)
class Projection:
    """One point cloud of the projector.

    Attributes:
        name: Name of the cloud, e.g. `articles`.
        embedding: `[num_points, dim]` float32.
        labels: `[num_points]` rows; each column can be used to label, colour and search the points, the first by default.
        images: Image of each point, if there are any.
    """

    name: str
    embedding: np.ndarray
    labels: pd.DataFrame
    images: Sequence[Path | None] | None = None


def _clean(value: object) -> str:
    """Formats a value for a tab-separated file."""
    words = "" if value is None or value is pd.NA or value != value else str(value)
    return " ".join(words.split()) or "-"


def _write_sprites(images: Sequence[Path | None], path: Path) -> None:
    """Writes thumbnails row by row into a square sprite image; missing and unreadable images are grey."""
    columns = int(np.ceil(np.sqrt(len(images))))
    sheet = Image.new("RGB", (columns * SPRITE_SIDE, columns * SPRITE_SIDE), "#cccccc")
    for place, image in enumerate(images):
        if image is None:
            continue
        try:
            with Image.open(image) as original:
                small = original.convert("RGB").resize((SPRITE_SIDE, SPRITE_SIDE))
        except (OSError, UnidentifiedImageError):
            continue
        sheet.paste(small, (place % columns * SPRITE_SIDE, place // columns * SPRITE_SIDE))
    sheet.save(path)


def write_projector(folder: Path, projections: Sequence[Projection]) -> None:
    """Writes `projector_config.pbtxt`, and the vectors, labels and thumbnails of each cloud.

    Args:
        folder: Folder given to `tensorboard --logdir`, or one below it; created if missing.
        projections: Point clouds with one label row, and one image if any, per point; at most `MAX_SPRITES` images.

    Source:
        https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = []
    for projection in projections:
        # Seven digits distinguish all 32-bit floats.
        np.savetxt(folder / f"{projection.name}.tsv", projection.embedding, fmt="%.7g", delimiter="\t")
        columns = [[_clean(value) for value in projection.labels[column]] for column in projection.labels]
        rows = ["\t".join(row) for row in zip(*columns, strict=True)]
        # The projector expects no header for a single column.
        head = ["\t".join(_clean(name) for name in projection.labels)] if len(columns) > 1 else []
        (folder / f"{projection.name}_labels.tsv").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
        fields = [
            f"tensor_name: {json.dumps(projection.name)}",
            f'tensor_path: "{projection.name}.tsv"',
            f'metadata_path: "{projection.name}_labels.tsv"',
        ]
        if projection.images is not None:
            _write_sprites(projection.images, folder / f"{projection.name}_sprites.png")
            side = f"single_image_dim: {SPRITE_SIDE} single_image_dim: {SPRITE_SIDE}"
            fields.append(f'sprite {{ image_path: "{projection.name}_sprites.png" {side} }}')
        configs.append("embeddings {\n" + "".join(f"  {line}\n" for line in fields) + "}\n")
    (folder / "projector_config.pbtxt").write_text("".join(configs), encoding="utf-8")
