from pathlib import Path

import numpy as np
import pandas as pd
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tfrs_fashion.evaluation.report.projector import SPRITE_SIDE, Projection, write_projector


def read_config(folder: Path) -> ProjectorConfig:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(encoding="utf-8"), ProjectorConfig())


def test_projector_config_refers_to_vectors_and_labels(tmp_path: Path) -> None:
    embedding = np.array([[0.1, -2.0], [1e-9, 3.5], [0.0, 1.0]], np.float32)
    labels = pd.DataFrame({"name": ["Jäckchen\trot\n(neu)", None, ""], "colour": ["red", "blue", np.nan]})
    customers = Projection("customers", embedding[:2], pd.DataFrame({"customer_id": ["a", "b"]}))
    write_projector(tmp_path / "log", [Projection("articles", embedding, labels), customers])
    articles, others = read_config(tmp_path / "log").embeddings
    assert (articles.tensor_name, others.tensor_name) == ("articles", "customers")
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "log" / articles.tensor_path, dtype=np.float32), embedding)
    rows = (tmp_path / "log" / articles.metadata_path).read_text(encoding="utf-8").splitlines()
    # Neither a tab nor a line break within a label; what is unknown is a dash.
    assert rows == ["name\tcolour", "Jäckchen rot (neu)\tred", "-\tblue", "-\t-"]
    # A single column has no head.
    assert (tmp_path / "log" / others.metadata_path).read_text().splitlines() == ["a", "b"]


def test_thumbnails_are_in_the_order_of_the_points(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0)]
    paths: list[Path | None] = []
    for number, colour in enumerate(colours):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (80, 120), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    images = [paths[0], None, tmp_path / "broken.jpg", tmp_path / "missing.jpg", paths[1]]
    found = Projection("articles", np.zeros((5, 2), np.float32), pd.DataFrame({"name": list("abcde")}), images)
    write_projector(tmp_path / "log", [found])
    (articles,) = read_config(tmp_path / "log").embeddings
    assert list(articles.sprite.single_image_dim) == [SPRITE_SIDE, SPRITE_SIDE]
    sheet = Image.open(tmp_path / "log" / articles.sprite.image_path)
    # Five points make a sheet of three by three.
    assert sheet.size == (3 * SPRITE_SIDE, 3 * SPRITE_SIDE)
    middle = SPRITE_SIDE // 2
    seen = [sheet.getpixel((place % 3 * SPRITE_SIDE + middle, place // 3 * SPRITE_SIDE + middle)) for place in range(5)]
    grey = (204, 204, 204)
    assert seen == [colours[0], grey, grey, grey, colours[1]]
