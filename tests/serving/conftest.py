"""What tests of artifacts share."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

_ASK = """
import json, sys
import tensorflow as tf
customers, *folders = sys.argv[1:]
for folder in folders:
    artifact = tf.saved_model.load(folder)
    answer = artifact.signatures["serving_default"](customer_id=tf.constant(json.loads(customers)))
    foreign = {"tfrs_fashion", "tensorflow_recommenders", "scann"} & set(sys.modules)
    ids = [[value.decode() for value in row] for row in answer["article_ids"].numpy()]
    print("answer", json.dumps({"foreign": sorted(foreign), "ids": ids, "scores": answer["scores"].numpy().tolist()}))
"""


@pytest.fixture(scope="session")
def ask_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """Asks artifacts in a process that imports TensorFlow alone: which of our modules were there, ids and scores of each."""

    def ask(customers: Sequence[str], artifacts: Sequence[Path]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("alone")
        (folder / "ask.py").write_text(_ASK)
        command = [sys.executable, "ask.py", json.dumps(list(customers)), *map(str, artifacts)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        lines = [line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer ")]
        assert len(lines) == len(artifacts)
        return [json.loads(line) for line in lines]

    return ask
