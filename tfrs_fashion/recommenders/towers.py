"""Two towers as a recommender: a query tower with an index over the candidates in store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tensorflow as tf
from rich.console import Console

from tfrs_fashion.features.articles import make_content_values
from tfrs_fashion.features.inputs import (
    SECONDS_A_DAY,
    Histories,
    HistoryTable,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.scann import Scann
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.losses import sampling_probability
from tfrs_fashion.models.retrieval import TwoTowerModel
from tfrs_fashion.models.towers import CandidateTower, QueryTower
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender, load_state, save_state, with_source
from tfrs_fashion.schema import FIRST_INDEX

IndexKind = Literal["exact", "scann"]


class TwoTower(tf.Module):
    """Embeds a history and looks up its nearest candidates.

    Args:
        query_tower: Built, with its weights.
        article_embedding: `[num_articles + 2, embedding_dim]` float32, what histories are made of.
        candidate_embedding: `[num_candidates, embedding_dim + 1]` float32.
        article_index: `[num_candidates]` int32, the articles in store.
        settings: What `QueryTower` was made from, and `history_length`.
        epochs: Epochs that it was trained for.
        curves: Figures of each epoch.
        name: As used in reports.
    """

    def __init__(
        self,
        query_tower: QueryTower,
        article_embedding: np.ndarray,
        candidate_embedding: np.ndarray,
        article_index: np.ndarray,
        *,
        settings: dict[str, Any],
        epochs: int = 0,
        curves: dict[str, list[float]] | None = None,
        name: str = "two_tower",
    ) -> None:
        super().__init__(name=name)
        self.history_length: int | None = settings["history_length"]
        self.epochs = epochs
        self.curves = curves or {}
        self._settings = settings
        self._query_tower = query_tower
        self._article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)
        self.candidates = (candidate_embedding, article_index)
        self._index: Exact | Scann = Exact(candidate_embedding, article_index)

    def with_index(self, kind: IndexKind, *, name: str, **settings: Any) -> Self:
        """Returns the same towers over another index; `settings` go to `Scann`."""
        candidate_embedding, article_index = self.candidates
        other = type(self)(
            self._query_tower,
            self._article_embedding.numpy(),
            candidate_embedding,
            article_index,
            settings=self._settings,
            name=name,
        )
        match kind:
            case "exact":
                pass
            case "scann":
                other._index = Scann(candidate_embedding, article_index, **settings)
        return other

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        if self.history_length is not None:
            histories = histories.last(self.history_length)
        _bought, strongest = self._query_tower.read(histories, now)
        embedding = tf.gather(self._article_embedding, strongest.article_index)
        return self._query_tower(strongest, embedding, histories, now)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k nearest articles in store; see `Recommender`. The score is the cosine."""
        return with_source(*self._index(self.embed(histories, now), k=k, exclude=exclude), self.name)

    def save(self, folder: Path) -> None:
        """Writes the query tower's weights, and the embeddings of articles and candidates."""
        candidate_embedding, article_index = self.candidates
        weights = {f"weight_{number:02d}": weight for number, weight in enumerate(self._query_tower.get_weights())}
        arrays = {
            "article_embedding": self._article_embedding.numpy(),
            "candidate_embedding": candidate_embedding,
            "article_index": article_index,
        }
        save_state(folder, {**arrays, **weights}, settings=self._settings, epochs=self.epochs, curves=self.curves)

    @classmethod
    def load(cls, folder: Path) -> "TwoTower":
        """Reads what `save` wrote."""
        arrays, stored = load_state(folder)
        query_tower = _make_query_tower(stored["settings"])
        query_tower.set_weights([arrays.pop(name) for name in sorted(arrays) if name.startswith("weight_")])
        return cls(query_tower, **arrays, **stored)


def _make_query_tower(settings: dict[str, Any]) -> QueryTower:
    """Makes a query tower whose weights all exist, by embedding an empty history."""
    tower = QueryTower(**{name: value for name, value in settings.items() if name != "history_length"})
    histories = Histories.empty(1, num_features=len(settings["profile_sizes"]), num_numbers=0)
    now = tf.zeros([1], tf.int64)
    _bought, strongest = tower.read(histories, now)
    tower(strongest, tf.zeros([0, settings["embedding_dim"]]), histories, now)
    return tower


def fit_two_tower(
    view: View,
    *,
    embedding_dim: int = 128,
    history_length: int = 512,
    history_articles: int = 64,
    time_scales_days: Sequence[float] = (10.0, 30.0, 120.0, 400.0),
    num_steps: int = 3,
    content_scale: float = 0.1,
    num_text_buckets: int = 8192,
    min_baskets: int = 5,
    temperature: float = 0.07,
    target_days: int = 308,
    new_weight: float = 0.3,
    batch_size: int = 256,
    num_sampled_negatives: int = 4000,
    learning_rate: float = 0.005,
    steps_per_epoch: int = 0,
    epochs: int = 1,
    max_epochs: int | None = None,
    patience: int = 2,
    seed: int = 1,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    console: Console | None = None,
) -> TwoTower:
    """Fits two towers on the next baskets of customers who had bought before.

    Args:
        view: What may be seen.
        embedding_dim: See `config.TwoTowerConfig` for this and the other settings.
        history_length: Last events of a history that are counted.
        history_articles: Articles of a history that the query tower reads.
        time_scales_days: Time constants of the decayed counts.
        num_steps: See `models.encoders.HistoryEncoder`.
        content_scale: See `models.encoders.ArticleEncoder`.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        min_baskets: Articles in fewer baskets have no embedding of their own.
        temperature: Of the softmax at the start.
        target_days: Days before the cutoff whose baskets are targets.
        new_weight: Weight of a target that the history lacks.
        batch_size: Baskets in a batch.
        num_sampled_negatives: Expected number of further candidates in a batch.
        learning_rate: At the start.
        steps_per_epoch: Batches of an epoch; 0 for a whole pass.
        epochs: At most so many epochs.
        max_epochs: Epochs over which the learning rate falls; `epochs` by default.
        patience: Epochs without a better figure before training stops.
        seed: Of weights, batches and samples.
        validate: Judges the towers after each epoch; without it all epochs are run.
        console: Where each epoch's figures are shown.

    Returns:
        The towers after the last epoch, over the exact index, with the number of the best epoch and all figures.

    Raises:
        InputError: No basket has an earlier one of the same customer before it.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles, timelines = view.articles, view.timelines
    since = int(view.now.max()) - target_days * SECONDS_A_DAY
    baskets = make_training_baskets(timelines, since=since, history_length=history_length)
    dataset = make_training_dataset(HistoryTable(timelines, view.profiles), baskets, batch_size=batch_size, seed=seed)
    size = articles.num_articles + FIRST_INDEX
    num_targets = np.bincount(baskets.target, minlength=size)
    frequent = articles.num_baskets >= min_baskets
    id_index = np.where(frequent, np.cumsum(frequent), 0).astype(np.int32)
    encoder = ArticleEncoder(
        id_index,
        make_content_values(articles, num_text_buckets=num_text_buckets),
        embedding_dim=embedding_dim,
        content_scale=content_scale,
        seed=seed,
    )
    log_count = np.log1p(num_targets)
    known = np.arange(size) >= FIRST_INDEX
    initial_bias = (0.1 * (log_count - log_count[known].mean())).astype(np.float32)
    settings = {
        "num_customers": timelines.num_customers,
        "profile_sizes": [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        "embedding_dim": embedding_dim,
        "time_scales_days": list(time_scales_days),
        "num_articles": history_articles,
        "num_steps": num_steps,
        "seed": seed,
        "history_length": history_length,
    }
    in_batch = sampling_probability(num_targets, total_baskets=len(baskets.row), batch_size=batch_size).numpy()
    share = np.sqrt(num_targets + 0.5) * (known & frequent)
    # Where no article has an embedding of its own, there is none to draw.
    sampling_rate = -np.expm1(-num_sampled_negatives * share / (share.sum() or 1.0))
    model = TwoTowerModel(
        encoder=encoder,
        query_tower=_make_query_tower(settings),
        candidate_tower=CandidateTower(encoder, initial_bias),
        temperature=temperature,
        log_probability=np.log(np.maximum(1.0 - (1.0 - in_batch) * (1.0 - sampling_rate), 1e-12)),
        sampling_rate=sampling_rate,
        new_weight=new_weight,
    )
    steps = (max_epochs or epochs) * (steps_per_epoch or int(dataset.cardinality()))
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.05 * learning_rate)
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    in_store = articles.in_store

    def recommender(epochs: int = 0, curves: dict[str, list[float]] | None = None) -> TwoTower:
        return TwoTower(
            model.query_tower,
            _in_batches(encoder, np.arange(size, dtype=np.int32)),
            _in_batches(model.candidate_tower, in_store),
            in_store,
            settings=settings,
            epochs=epochs,
            curves=curves,
        )

    judge = None if validate is None else lambda: validate(recommender())
    best, curves = fit_model(
        model,
        dataset,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validate=judge,
        patience=patience,
        console=console,
    )
    return recommender(best, curves)


def _in_batches(encode: Callable[[tf.Tensor], tf.Tensor], article_index: np.ndarray, size: int = 8192) -> np.ndarray:
    starts = range(0, len(article_index), size)
    return np.concatenate([encode(tf.constant(article_index[start : start + size])).numpy() for start in starts])
