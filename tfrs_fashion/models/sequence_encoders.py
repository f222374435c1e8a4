"""Encoders of sequences: a GRU, an LSTM and causal self-attention, which take each other's place."""

from typing import Literal

import tensorflow as tf

SequenceKind = Literal["gru", "lstm", "attention"]


class Lstm(tf.keras.layers.Layer):
    """An LSTM whose whole sequence is one operation: a loop of TensorFlow's costs a query more than its steps.

    Args:
        dim: Width of states and output.
        seed: Of the initial weights, which are those of Keras.

    Source: Hochreiter and Schmidhuber 1997, with forget gates.
    """

    def __init__(self, dim: int, *, seed: int) -> None:
        super().__init__(name="lstm")
        self._dim = dim
        self._seed = seed

    def build(self, shape: tf.TensorShape) -> None:
        """Makes the weights; the gates are input, state, forget and output, side by side."""
        width = 4 * self._dim
        kernel = tf.keras.initializers.GlorotUniform(self._seed)([shape[-1], width])
        recurrent = tf.keras.initializers.Orthogonal(seed=self._seed + 1)([self._dim, width])
        self._kernel = self.add_weight("kernel", [shape[-1] + self._dim, width], initializer="zeros")
        self._kernel.assign(tf.concat([kernel, recurrent], axis=0))
        self._bias = self.add_weight("bias", [width], initializer="zeros")
        self._bias.assign(tf.repeat([0.0, 0.0, 1.0, 0.0], self._dim))

    def call(self, steps: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, length, any]` float32 as `[batch, length, dim]`."""
        nothing, peephole = tf.zeros([tf.shape(steps)[0], self._dim]), tf.zeros([self._dim])
        # TensorFlow gives the operation's second version, whose gates have another order, the gradient of the first.
        encoded = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.shape(steps, tf.int64)[1],
            x=tf.transpose(steps, [1, 0, 2]),
            cs_prev=nothing,
            h_prev=nothing,
            w=self._kernel,
            wci=peephole,
            wcf=peephole,
            wco=peephole,
            b=self._bias,
            forget_bias=0.0,
            cell_clip=0.0,
            use_peephole=False,
        )
        return tf.transpose(encoded.h, [1, 0, 2])


class Recurrent(tf.keras.layers.Layer):
    """Layers of a GRU or an LSTM; padding stands at the end, where no step that counts sees it.

    Args:
        kind: Which cell.
        dim: Width of states and output.
        num_layers: How many, one above the other.
        dropout: Share of each layer's outputs that are left out in training.
        seed: Of the initial weights.
    """

    def __init__(self, kind: Literal["gru", "lstm"], *, dim: int, num_layers: int, dropout: float, seed: int) -> None:
        super().__init__(name=kind)
        self._layers = [_make_layer(kind, dim, seed=seed + 2 * number) for number in range(num_layers)]
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)

    def call(self, steps: tf.Tensor, num_steps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Encodes `[batch, length, any]` float32 as `[batch, length, dim]`; each step sees those before it and itself."""
        for layer in self._layers:
            steps = self._dropout(layer(steps), training=training)
        return steps


def _make_layer(kind: Literal["gru", "lstm"], dim: int, *, seed: int) -> tf.keras.layers.Layer:
    if kind == "lstm":
        return Lstm(dim, seed=seed)
    return tf.keras.layers.GRU(
        dim,
        return_sequences=True,
        kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=tf.keras.initializers.Orthogonal(seed=seed + 1),
    )


class SelfAttention(tf.keras.layers.Layer):
    """Blocks of self-attention, normalised before each part; padding stands at the end.

    Positions are counted from the start of what is read, and learned.

    Args:
        dim: Width.
        length: Steps that are read at most.
        num_layers: Blocks.
        num_heads: Heads of each; they divide `dim`.
        dropout: Share that is left out in training, of weights and outputs.
        is_causal: Whether a step sees those before it alone, or all that are no padding.
        seed: Of the initial weights.

    Source: Kang and McAuley 2018, Self-Attentive Sequential Recommendation; Sun et al. 2019, BERT4Rec, for the other.
    """

    def __init__(
        self, *, dim: int, length: int, num_layers: int, num_heads: int, dropout: float, is_causal: bool, seed: int
    ) -> None:
        super().__init__(name="attention")
        self._is_causal = is_causal
        self._position = self.add_weight(
            "position", [length, dim], initializer=tf.keras.initializers.RandomNormal(stddev=0.02, seed=seed)
        )
        glorot = tf.keras.initializers.GlorotUniform
        self._first = tf.keras.layers.Dense(dim, kernel_initializer=glorot(seed=seed))
        self._blocks = [
            (
                tf.keras.layers.LayerNormalization(epsilon=1e-6),
                tf.keras.layers.MultiHeadAttention(
                    num_heads, dim // num_heads, dropout=dropout, kernel_initializer=glorot(seed=seed + 3 * number + 1)
                ),
                tf.keras.layers.LayerNormalization(epsilon=1e-6),
                tf.keras.layers.Dense(2 * dim, "gelu", kernel_initializer=glorot(seed=seed + 3 * number + 2)),
                tf.keras.layers.Dense(dim, kernel_initializer=glorot(seed=seed + 3 * number + 3)),
            )
            for number in range(num_layers)
        ]
        self._last = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)

    def call(self, steps: tf.Tensor, num_steps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Encodes `[batch, length, any]` float32, of which `[batch]` int32 are no padding, as `[batch, length, dim]`."""
        mask = None
        if not self._is_causal:
            mask = tf.sequence_mask(num_steps, tf.shape(steps)[1])[:, tf.newaxis, :]
        hidden = self._first(steps) + self._position[: tf.shape(steps)[1]]
        hidden = self._dropout(hidden, training=training)
        for before, attend, between, widen, narrow in self._blocks:
            read = before(hidden)
            found = attend(read, read, attention_mask=mask, use_causal_mask=self._is_causal, training=training)
            hidden += self._dropout(found, training=training)
            hidden += self._dropout(narrow(widen(between(hidden))), training=training)
        encoded: tf.Tensor = self._last(hidden)
        return encoded


def make_sequence_encoder(
    kind: SequenceKind,
    *,
    dim: int,
    length: int,
    num_layers: int,
    num_heads: int,
    dropout: float,
    is_causal: bool = True,
    seed: int,
) -> Recurrent | SelfAttention:
    """Makes an encoder by its name; see the classes for the arguments."""
    if kind == "attention":
        return SelfAttention(
            dim=dim,
            length=length,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            is_causal=is_causal,
            seed=seed,
        )
    return Recurrent(kind, dim=dim, num_layers=num_layers, dropout=dropout, seed=seed)
