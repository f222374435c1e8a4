"""What trained models have in common: their steps can tell more than the loss."""

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs


def _num_rows(inputs: Any) -> tf.Tensor:
    first = tf.nest.flatten(inputs)[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first, out_type=tf.int64)[0]


class RecordedModel(tfrs.Model):
    """A TFRS model whose training step tells the length of the gradient and the rows of the batch, where that is asked for.

    Attributes:
        records_steps: Whether it does; to be set before the first step.
    """

    records_steps = False

    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Takes one step.

        Args:
            inputs: A batch, as `compute_loss` takes it.

        Returns:
            What the step of TFRS tells; with `records_steps`, `gradient_norm` and `num_rows` too. Of an embedding whose rows a
            batch reads several times, each time counts by itself in the norm.
        """
        if not self.records_steps:
            told: dict[str, tf.Tensor] = super().train_step(inputs)
            return told
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
            regularization_loss = tf.add_n(self.losses) if self.losses else tf.zeros([])
            total_loss = loss + regularization_loss
        gradients = tape.gradient(total_loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {
            **{metric.name: metric.result() for metric in self.metrics},
            "loss": loss,
            "regularization_loss": regularization_loss,
            "total_loss": total_loss,
            "gradient_norm": tf.linalg.global_norm([gradient for gradient in gradients if gradient is not None]),
            "num_rows": _num_rows(inputs),
        }
