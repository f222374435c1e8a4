"""A sequential tower as a recommender: the order of purchases in, an index over candidates behind it."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.sequences import read_steps
from tfrs_fashion.models.sequential import SequentialTower
from tfrs_fashion.recommenders.indexed_tower import CandidateSet, IndexedTower, load_candidates
from tfrs_fashion.recommenders.recommender import load_state, save_state


class Sequential(IndexedTower):
    """Reads a history in its order and looks up the candidates nearest to where it leads.

    Args:
        tower: Built, with its weights.
        article_embedding: `[num_articles + 2, embedding_dim]` float32, what steps are made of.
        in_store: The articles to recommend.
        never_sold: The articles that the catalogue lists and that were never sold.
        settings: What the tower was made from; see `make_sequential_tower`.
        answers_strangers: Whether customers without a history are answered, by what begins a history like theirs.
        name: As used in reports.
    """

    def __init__(
        self,
        tower: SequentialTower,
        article_embedding: np.ndarray,
        *,
        in_store: CandidateSet,
        never_sold: CandidateSet,
        settings: dict[str, Any],
        answers_strangers: bool,
        name: str,
    ) -> None:
        super().__init__(
            in_store=in_store,
            never_sold=never_sold,
            history_length=settings["length"],
            needs_history=not answers_strangers,
            name=name,
        )
        self._settings = settings
        self._tower = tower
        self._article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)

    def _renamed(self, name: str) -> Self:
        return type(self)(
            self._tower,
            self._article_embedding.numpy(),
            in_store=self.in_store,
            never_sold=self.never_sold,
            settings=self._settings,
            answers_strangers=not self.needs_history,
            name=name,
        )

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        steps = read_steps(histories, now, length=self._settings["length"])
        # An article that came into the catalogue after the fit is an unknown one.
        known = tf.where(steps.article_index < tf.shape(self._article_embedding)[0], steps.article_index, 1)
        steps = self._tower.arrange(steps._replace(article_index=known))
        encoded = self._tower.encode(tf.gather(self._article_embedding, steps.article_index), steps)
        last = tf.gather(encoded, steps.num_steps - 1, batch_dims=1)
        customer = self._tower.describe_customers(
            histories.customer_index, histories.profile, histories.profile_numbers
        )
        return self._tower.embed(last, customer)

    def save(self, folder: Path) -> None:
        """Writes the tower's weights, and the embeddings of articles and candidates."""
        arrays = {f"weight_{number:04d}": weight for number, weight in enumerate(self._tower.get_weights())}
        arrays["article_embedding"] = self._article_embedding.numpy()
        told = {"answers_strangers": not self.needs_history, "name": self.name}
        save_state(folder, arrays | self.candidate_arrays(), settings=self._settings, **told)

    @classmethod
    def load(cls, folder: Path) -> "Sequential":
        """Reads what `save` wrote."""
        arrays, stored = load_state(folder)
        tower = make_sequential_tower(stored["settings"])
        tower.set_weights([arrays[name] for name in sorted(arrays) if name.startswith("weight_")])
        return cls(tower, arrays["article_embedding"], **load_candidates(arrays), **stored)


def make_sequential_tower(settings: dict[str, Any]) -> SequentialTower:
    """Makes a tower whose weights all exist, by embedding an empty history.

    Args:
        settings: What `SequentialTower` takes.
    """
    tower = SequentialTower(**settings)
    histories = Histories.empty(
        1, num_features=len(settings["profile_sizes"]), num_numbers=settings["num_profile_numbers"]
    )
    steps = read_steps(histories, tf.zeros([1], tf.int64), length=settings["length"])
    encoded = tower.encode(tf.zeros([1, 1, settings["embedding_dim"]]), steps)
    customer = tower.describe_customers(histories.customer_index, histories.profile, histories.profile_numbers)
    tower.embed(encoded[:, 0], customer)
    return tower
