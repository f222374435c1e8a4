"""Rendered images that tests of images share: coloured shapes on a light ground, and weights nobody trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (30, 50, 210)}


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """Draws `circle`, `square` or `stripes` at a random place, as `[side, side, 3]` uint8."""

    def draw_shape(colour: str, shape: str, *, seed: int, side: int = 48) -> np.ndarray:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:side, :side]
        centre_x, centre_y = side / 2 + random.uniform(-side / 8, side / 8, 2)
        radius = random.uniform(side / 5, side / 3)
        offset = random.integers(8)
        covered = {
            "circle": (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2,
            "square": (abs(x - centre_x) < radius) & (abs(y - centre_y) < radius),
            "stripes": (x + offset) // 6 % 2 == 0,
        }[shape]
        image = np.full((side, side, 3), 245.0) + random.normal(0, 4, (side, side, 3))
        image[covered] = np.array(COLOURS[colour]) + random.normal(0, 10, 3)
        return image.clip(0, 255).astype(np.uint8)

    return draw_shape


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the smallest MobileNetV2 as it is initialised."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    path = tmp_path_factory.mktemp("weights") / "random.h5"
    network = tf.keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    network.save_weights(path)
    return path
