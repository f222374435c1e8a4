"""Recommendations for fashion retail, built on TensorFlow Recommenders.

TensorFlow Recommenders needs the Keras 2 API, which TensorFlow offers only if `TF_USE_LEGACY_KERAS` is set
before TensorFlow is first imported. Importing this package sets it; TensorFlow itself is loaded later, by the
modules that use it.
"""

import os
import sys

__version__ = "0.1.0"


def _require_legacy_keras() -> None:
    """Makes `tf.keras` the Keras 2 API.

    Raises:
        ImportError: TensorFlow was imported earlier in this process with Keras 3.
    """
    wanted = os.environ.get("TF_USE_LEGACY_KERAS", "")
    if wanted.lower() in {"1", "true"}:
        return
    if "tensorflow" in sys.modules:
        raise ImportError(
            "tfrs_fashion needs the Keras 2 API, but TensorFlow was imported before it, with Keras 3. "
            "Import tfrs_fashion first, or set the environment variable TF_USE_LEGACY_KERAS=1."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_require_legacy_keras()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
