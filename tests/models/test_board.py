"""What a training tells TensorBoard, read back from its event files."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tfrs_fashion.models.board import BATCHES_A_POINT, write_hparams, write_images
from tfrs_fashion.models.fit import FitEndedError, fit_model
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.models.training_log import TrainingLog

NUM_ROWS = 200


class Line(RecordedModel):
    """Learns one number a row, by a loss whose gradient is known: the distance from 0 of the rows that a batch names."""

    def __init__(self) -> None:
        super().__init__(name="line")
        self.table = self.add_weight("table", [NUM_ROWS, 2], initializer="ones")
        self.scale = self.add_weight("scale", [], initializer="ones")

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        return tf.reduce_sum(tf.gather(self.table, inputs["row"])) + 0.0 * self.scale


def fit(
    folder: Path | None,
    *,
    epochs: int = 2,
    batches: int = 3,
    validate: Callable[[], dict[str, float]] | None = None,
    **log: Any,
) -> tuple[Line, dict[str, list[float]]]:
    model = Line()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.01))
    rows = tf.constant(np.arange(4 * batches) % NUM_ROWS, tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices({"row": rows}).batch(4)
    figures = iter([0.25, 0.5, 0.75])
    _best, curves = fit_model(
        model,
        dataset,
        epochs=epochs,
        validate=validate or (lambda: {"val_map@3": next(figures)}),
        log=TrainingLog(folder=folder, **log),
    )
    return model, curves


def read(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """All values by tag, with their steps; numbers and histograms as arrays."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            found[tag].append((event.step, tf.make_ndarray(event.tensor_proto)))
    return found


def test_every_epoch_tells_its_figures(tmp_path: Path) -> None:
    _model, curves = fit(tmp_path, settings='{"seed": 7}')
    found = read(tmp_path)
    assert [(step, float(value)) for step, value in found["val_map@3"]] == [(1, 0.25), (2, 0.5)]
    assert [float(value) for _step, value in found["loss"]] == pytest.approx(curves["loss"])
    assert [float(value) for _step, value in found["learning_rate"]] == pytest.approx([0.01, 0.01])
    assert all(value > 0 for _step, value in found["examples_per_second"])
    assert [float(value) for _step, value in found["weight/scale"]] == [1.0, 1.0]
    ((_step, settings),) = found["settings"]
    assert '"seed": 7' in str(settings)
    # Each of the 8 numbers of a batch has the gradient 1.
    assert float(found["gradient_norm"][0][1]) == pytest.approx(8**0.5)


def test_the_epoch_that_ends_a_training_is_told(tmp_path: Path) -> None:
    def end() -> dict[str, float]:
        raise FitEndedError({"val_map@3": 0.125})

    with pytest.raises(FitEndedError):
        fit(tmp_path, epochs=3, validate=end)
    found = read(tmp_path)
    assert [(step, float(value)) for step, value in found["val_map@3"]] == [(1, 0.125)]
    assert len(found["loss"]) == 1


def test_norms_and_histograms_are_those_of_the_weights(tmp_path: Path) -> None:
    model, _curves = fit(tmp_path)
    found = read(tmp_path)
    length = np.linalg.norm(model.table.numpy(), axis=1).mean()
    assert float(found["embedding_norm/table"][-1][1]) == pytest.approx(length, rel=1e-6)
    buckets = found["table"][-1][1]
    assert buckets[:, 2].sum() == NUM_ROWS * 2
    assert buckets[0, 0] == pytest.approx(model.table.numpy().min(), abs=1e-6)


def test_points_by_batch_are_means_of_many(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, batches=2 * BATCHES_A_POINT + 3)
    steps = [step for step, _value in read(tmp_path)["batch_loss"]]
    assert steps == [BATCHES_A_POINT, 2 * BATCHES_A_POINT, 2 * BATCHES_A_POINT + 3]


def test_histograms_may_be_left_out(tmp_path: Path) -> None:
    fit(tmp_path, histograms=False)
    found = read(tmp_path)
    assert "table" not in found
    assert "embedding_norm/table" in found


def test_a_log_does_not_mix_with_that_of_a_former_training(tmp_path: Path) -> None:
    fit(tmp_path, epochs=2)
    (tmp_path / "events.out.tfevents.1.foreign").write_bytes(b"half an event")
    fit(tmp_path, epochs=1)
    assert [step for step, _value in read(tmp_path)["loss"]] == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_trace_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, batches=8, profile=True)
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_a_trace_ends_with_its_epoch_and_with_a_training_that_fails(tmp_path: Path) -> None:
    for _again in range(2):
        with pytest.raises(StopIteration):
            fit(tmp_path, epochs=9, batches=7, profile=True)
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_the_log_of_a_part_outlives_that_of_the_whole(tmp_path: Path) -> None:
    fit(TrainingLog(folder=tmp_path).part("vectors").folder)
    fit(tmp_path)
    assert "loss" in read(tmp_path / "vectors")


def test_logging_changes_nothing_of_what_is_learned(tmp_path: Path) -> None:
    logged, plain = (fit(folder)[0].table.numpy() for folder in (tmp_path, None))
    np.testing.assert_array_equal(logged, plain)
    assert not np.array_equal(plain, np.ones_like(plain))


def test_layers_are_named_alike_in_every_fit(tmp_path: Path) -> None:
    class Deep(RecordedModel):
        def __init__(self) -> None:
            super().__init__(name="deep")
            self.layers_ = [tf.keras.layers.Dense(3), tf.keras.layers.Dense(1)]

        def compute_loss(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
            return tf.reduce_sum(self.layers_[1](self.layers_[0](inputs)))

    tags = []
    for number in range(2):
        model = Deep()
        model.compile(optimizer=tf.keras.optimizers.SGD(0.01))
        folder = tmp_path / str(number)
        fit_model(model, tf.data.Dataset.from_tensors(tf.ones([2, 5])), epochs=1, log=TrainingLog(folder=folder))
        tags.append({tag for tag in read(folder) if "dense" in tag})
    assert tags[0] == tags[1]
    assert tags[0] >= {"dense/kernel", "dense_1/kernel", "dense/bias"}


def test_settings_of_trials_and_what_came_of_them_are_told(tmp_path: Path) -> None:
    trials: dict[str, Any] = {"0": ({"two_tower.rate": 0.1, "dims": [8, 4]}, 0.25), "1": ({"two_tower.rate": 0.2}, 0.5)}
    for _again in range(2):
        write_hparams(tmp_path, objective="map@3", trials=trials)
    for name, (values, objective) in trials.items():
        assert len(list((tmp_path / name).iterdir())) == 1
        assert float(read(tmp_path / name)["best/map@3"][0][1]) == objective
        events = EventAccumulator(str(tmp_path / name)).Reload()
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        assert set(told) == set(values)
        assert "_hparams_/session_end_info" in events.PluginTagToContent("hparams")
        assert told["two_tower.rate"].number_value == values["two_tower.rate"]


def test_figures_are_shown_as_images(tmp_path: Path) -> None:
    pixel = tf.io.encode_png(tf.zeros([2, 3, 3], tf.uint8)).numpy()
    write_images(tmp_path, {"roc": pixel})
    ((_step, image),) = read(tmp_path)["roc"]
    assert [int(side) for side in image[:2]] == [3, 2]
