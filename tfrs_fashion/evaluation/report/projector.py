"""Embeddings in the form that TensorBoard's projector reads: vectors, names and categories, and small pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

# Side of a picture, and pictures that a sheet holds: beyond that, browsers refuse it.
SPRITE_SIDE, MAX_SPRITES = 48, 2500


@dataclass(frozen=True)
class Projection:
    """Points that the projector shows as one cloud.

    Attributes:
        name: E.g. `articles`.
        embedding: `[num_points, dim]` float32.
        labels: `[num_points]` rows, a column for each way to label, to colour and to search; the first is what a point is called.
        images: Of each point, where there are any.
    """

    name: str
    embedding: np.ndarray
    labels: pd.DataFrame
    images: Sequence[Path | None] | None = None


def _clean(value: object) -> str:
    """Writes a value for a column of tab-separated values."""
    words = "" if value is None or value is pd.NA or value != value else str(value)
    return " ".join(words.split()) or "-"


def _write_sprites(images: Sequence[Path | None], path: Path) -> None:
    """Writes small pictures row by row into a square sheet; what is missing or no image is grey."""
    columns = int(np.ceil(np.sqrt(len(images))))
    sheet = Image.new("RGB", (columns * SPRITE_SIDE, columns * SPRITE_SIDE), "#cccccc")
    for place, image in enumerate(images):
        if image is None:
            continue
        try:
            with Image.open(image) as found:
                small = found.convert("RGB").resize((SPRITE_SIDE, SPRITE_SIDE))
        except (OSError, UnidentifiedImageError):
            continue
        sheet.paste(small, (place % columns * SPRITE_SIDE, place // columns * SPRITE_SIDE))
    sheet.save(path)


def write_projector(folder: Path, projections: Sequence[Projection]) -> None:
    """Writes `projector_config.pbtxt`, and for each cloud its vectors, its labels and its pictures.

    Args:
        folder: That `tensorboard --logdir` is given, or one below it; made if it is not there.
        projections: With as many labels, and pictures if any, as points; of pictures, `MAX_SPRITES` at most.

    Source: https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = []
    for found in projections:
        # Seven digits tell floats of 32 bits apart.
        np.savetxt(folder / f"{found.name}.tsv", found.embedding, fmt="%.7g", delimiter="\t")
        columns = [[_clean(value) for value in found.labels[column]] for column in found.labels]
        rows = ["\t".join(row) for row in zip(*columns, strict=True)]
        # A single column has no head, by the rule of the projector.
        head = ["\t".join(_clean(name) for name in found.labels)] if len(columns) > 1 else []
        (folder / f"{found.name}_labels.tsv").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
        fields = [
            f"tensor_name: {json.dumps(found.name)}",
            f'tensor_path: "{found.name}.tsv"',
            f'metadata_path: "{found.name}_labels.tsv"',
        ]
        if found.images is not None:
            _write_sprites(found.images, folder / f"{found.name}_sprites.png")
            side = f"single_image_dim: {SPRITE_SIDE} single_image_dim: {SPRITE_SIDE}"
            fields.append(f'sprite {{ image_path: "{found.name}_sprites.png" {side} }}')
        configs.append("embeddings {\n" + "".join(f"  {line}\n" for line in fields) + "}\n")
    (folder / "projector_config.pbtxt").write_text("".join(configs), encoding="utf-8")
