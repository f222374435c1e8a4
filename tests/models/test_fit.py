import io

import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from rich.console import Console

from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.schema import RunError


class Told(tfrs.Model):
    """A model whose loss is what its batch says, whatever its weight."""

    def __init__(self) -> None:
        super().__init__(name="told")
        self._weight = self.add_weight("weight", [], initializer="zeros")

    def compute_loss(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.reduce_sum(inputs) + 0.0 * self._weight


def make_model() -> Told:
    model = Told()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.1), run_eagerly=True)
    return model


def make_dataset(losses: list[float]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(tf.constant(losses)).batch(1)


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches() -> None:
    _best, curves = fit_model(make_model(), make_dataset([1.0, 5.0, 3.0]), epochs=2)
    assert curves == {"loss": [3.0, 3.0]} == {"loss": [(1 + 5 + 3) / 3] * 2}
    _best, curves = fit_model(make_model(), make_dataset([5.0, 3.0, 1.0]), epochs=1)
    assert curves == {"loss": [3.0]}


def test_without_validation_all_epochs_are_run() -> None:
    best, curves = fit_model(make_model(), make_dataset([1.0]), epochs=3, patience=1)
    assert best == 3
    assert len(curves["loss"]) == 3


@pytest.mark.parametrize(
    ("figures", "patience", "best", "epochs"),
    [
        # The best is epoch 2; epochs 3 and 4 are not better, and the fifth is never run.
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 2, 4),
        ([0.1, 0.3, 0.2, 0.25, 0.9], 1, 2, 3),
        ([0.1, 0.3, 0.2, 0.25, 0.9], 3, 5, 5),
        # Equal is not better.
        ([0.3, 0.3, 0.3, 0.3, 0.3], 2, 1, 3),
        ([0.0, 0.0, 0.5, 0.0, 0.0], 9, 3, 5),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 1, 1, 2),
    ],
)
def test_training_stops_when_the_figure_no_longer_rises(
    figures: list[float], patience: int, best: int, epochs: int
) -> None:
    given = iter(figures)
    found, curves = fit_model(
        make_model(),
        make_dataset([1.0]),
        epochs=len(figures),
        validate=lambda: {"val_map@3": next(given), "val_recall@3": 1.0},
        patience=patience,
    )
    assert found == best
    assert curves["val_map@3"] == figures[:epochs]
    assert curves["val_recall@3"] == [1.0] * epochs
    assert len(curves["loss"]) == epochs


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_training(loss: float) -> None:
    with pytest.raises(
        RunError, match=r"told: the loss of epoch 1 is (nan|inf)\. Lower `recommender\.two_tower\.learning_rate`"
    ):
        fit_model(make_model(), make_dataset([loss]), epochs=2)


def test_each_epoch_shows_its_figures() -> None:
    shown = io.StringIO()
    fit_model(
        make_model(),
        make_dataset([2.0]),
        epochs=1,
        validate=lambda: {"val_map@3": 0.25},
        log=TrainingLog(Console(file=shown)),
    )
    assert "told epoch 1/1  loss 2.0000  val_map@3 0.2500" in shown.getvalue()
