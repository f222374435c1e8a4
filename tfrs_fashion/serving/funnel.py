"""The funnel inside an artifact: raw ids in, a recommender, a fallback for whoever it cannot answer, raw ids out."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories, HistoryTable, ProfileVocabulary
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender
from tfrs_fashion.recommenders.with_fallback import WithFallback
from tfrs_fashion.schema import (
    FIRST_INDEX,
    HIGHEST_DISCOUNT,
    LOWEST_DISCOUNT,
    OLDEST,
    OUT_OF_VOCABULARY_INDEX,
    PADDING_INDEX,
    YOUNGEST,
)


class IdTable(tf.Module):
    """Ids to indices and back, from a text file that becomes an asset of the SavedModel.

    Args:
        ids: `[num_ids]` strings; the id with index `FIRST_INDEX + i` is row i.
        path: Where to write the file, one id a line.
    """

    def __init__(self, ids: Iterable[str], path: Path) -> None:
        super().__init__(name=path.stem)
        path.write_text("".join(f"{value}\n" for value in ids), encoding="utf-8")
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        self._to_index = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(str(path), tf.string, line, tf.int64, number, value_index_offset=FIRST_INDEX),
            default_value=OUT_OF_VOCABULARY_INDEX,
        )
        self._to_id = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(str(path), tf.int64, number, tf.string, line), default_value=""
        )

    def size(self) -> tf.Tensor:
        """Returns the number of ids, scalar int32."""
        return tf.cast(self._to_id.size(), tf.int32)

    def to_index(self, ids: tf.Tensor) -> tf.Tensor:
        """Looks up int32 indices; empty ids are padding, unknown ones out of vocabulary."""
        return tf.where(ids == "", PADDING_INDEX, tf.cast(self._to_index.lookup(ids), tf.int32))

    def to_id(self, index: tf.Tensor) -> tf.Tensor:
        """Looks up the ids of int32 indices; empty where there is none."""
        return self._to_id.lookup(tf.cast(index, tf.int64) - FIRST_INDEX)


def clean_history(events: dict[str, tf.Tensor], now: tf.Tensor, unknown: Histories) -> Histories:
    """Makes histories from padded request tensors.

    Events are sorted by time, then article. Padding (an empty id), unknown articles and events at or after `now` are
    left out. The rules of tables hold: lines of a quantity below 1 are left out, a price that is not above 0 and a
    discount that is no share are unknown.

    Args:
        events: For each name of `EVENT_TYPES` a `[batch, length]` tensor of its type.
        now: `[batch]` int64.
        unknown: The same customers without a history.
    """
    article_index, time = events["article_index"], events["time"]
    price, discount = events["price"], events["discount"]
    is_share = (discount >= LOWEST_DISCOUNT) & (discount <= HIGHEST_DISCOUNT)
    events = {
        **events,
        "price": tf.where(tf.math.is_finite(price) & (price > 0), price, float("nan")),
        "discount": tf.where(is_share, discount, float("nan")),
    }
    valid = (article_index >= FIRST_INDEX) & (time < now[:, tf.newaxis]) & (events["quantity"] >= 1)
    # Seconds need 33 bits until the year 2242, and article indices stay below 2 ** 30.
    key = time * 2**30 + tf.cast(article_index, tf.int64)
    order = tf.argsort(tf.where(valid, key, tf.int64.max), axis=1, stable=True)
    lengths = tf.reduce_sum(tf.cast(valid, tf.int64), axis=1)
    # All columns have one partition, and are gathered from one list of positions.
    column = tf.ragged.range(lengths)
    kept = tf.stack([column.value_rowids(), column.flat_values], axis=1)
    position = tf.stack([kept[:, 0], tf.cast(tf.gather_nd(order, kept), tf.int64)], axis=1)
    ordered = {name: column.with_flat_values(tf.gather_nd(values, position)) for name, values in events.items()}
    return unknown._replace(**ordered)


def clean_profile_numbers(numbers: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    """Applies the rules of tables to the numeric profile features of requests: what breaks one is NaN, unknown.

    Args:
        numbers: `[batch, num_numbers]` float32.
        names: Of the columns; `age` has bounds, others are finite.
    """
    is_age = tf.constant([name == "age" for name in names], tf.bool)
    inside = (numbers >= YOUNGEST) & (numbers <= OLDEST)
    return tf.where(tf.math.is_finite(numbers) & (inside | ~is_age), numbers, float("nan"))


class Funnel(tf.Module):
    """What an artifact computes.

    Args:
        recommender: Answers customers with a history.
        fallback: Answers the others, and fills lists that are too short. Its scores are not negative.
        customers: Customer ids.
        articles: Article ids.
        histories: Histories of the known customers.
        profile_vocabulary: Encodes profiles that come with a request.
        profile_numbers: Names of the numeric profile features.
        stores: Ids of the stores that histories name.
        now: `[num_customers + 2]` int64, the instant at which each customer is answered.
        k: Articles that `serving_default` returns.
    """

    def __init__(
        self,
        recommender: Recommender,
        fallback: Recommender,
        *,
        customers: IdTable,
        articles: IdTable,
        histories: HistoryTable,
        profile_vocabulary: ProfileVocabulary,
        profile_numbers: Sequence[str],
        stores: Sequence[str],
        now: np.ndarray,
        k: int,
    ) -> None:
        super().__init__(name="funnel")
        self._filled = WithFallback(recommender, fallback)
        self._tower = recommender if isinstance(recommender, IndexedTower) else None
        self._customers = customers
        self._articles = articles
        self._histories = histories
        self._profile_vocabulary = profile_vocabulary
        self._profile_numbers = tuple(profile_numbers)
        self._stores = ProfileVocabulary({"store_id": list(stores)})
        self._now = tf.Variable(now, trainable=False, dtype=tf.int64)
        self._k = k
        # One trace serves every signature.
        batch, excluded = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int32)
        signature = (histories.spec(), batch, tf.TensorSpec([], tf.int32), excluded)

        def answer(histories: Histories, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
            return self._filled(histories, now=now, k=k, exclude=exclude)

        traced = tf.function(answer, input_signature=signature, autograph=False)
        # A function that saving finds among the attributes is traced once more, and stored a second time.
        self._answer = lambda *inputs: traced(*inputs)

    def _outputs(self, histories: Histories, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> dict[str, tf.Tensor]:
        # No request can make the answer wider than the catalogue.
        width = tf.clip_by_value(tf.reduce_max(tf.concat([k, [1]], axis=0)), 1, tf.maximum(self._articles.size(), 1))
        found = self._answer(histories, now, width, self._articles.to_index(exclude))
        wanted = (tf.range(width)[tf.newaxis, :] < k[:, tf.newaxis]) & (found.article_index != PADDING_INDEX)
        return {
            "article_ids": tf.where(wanted, self._articles.to_id(found.article_index), ""),
            "scores": tf.where(wanted, found.score, 0.0),
            "sources": tf.where(wanted, found.source, ""),
        }

    def _stored(self, customer_id: tf.Tensor) -> tuple[Histories, tf.Tensor]:
        """Looks up the stored histories of customers, and the instants at which they are answered."""
        customer_index = tf.maximum(self._customers.to_index(customer_id), OUT_OF_VOCABULARY_INDEX)
        return self._histories(customer_index), tf.gather(self._now, customer_index)

    def by_customer(self, customer_id: tf.Tensor, exclude: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers known customers from their stored histories, and unknown ones without one.

        Args:
            customer_id: `[batch]` string.
            exclude: `[batch, num_excluded]` string article ids, empty strings where a row excludes fewer.
            k: `[batch]` int32, articles wanted.

        Returns:
            `article_ids` string, `scores` float32 and `sources` string, `[batch, width]`, best first, where the width is the
            largest k, but at least 1 and at most the number of articles. A row that wanted or found fewer ends in
            empty ids and sources with a score of 0.
        """
        return self._outputs(*self._stored(customer_id), k, exclude)

    def embed(self, tower: IndexedTower, customer_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds known customers from their stored histories, and unknown ones without one.

        Args:
            tower: The recommender.
            customer_id: `[batch]` string.

        Returns:
            `embeddings`, `[batch, embedding_dim + 1]` float32, whose inner product with a candidate's is its score.
        """
        return {"embeddings": tower.embed(*self._stored(customer_id))}

    def by_history(
        self,
        article_ids: tf.Tensor,
        times: tf.Tensor,
        prices: tf.Tensor,
        quantities: tf.Tensor,
        discounts: tf.Tensor,
        sales_channel_ids: tf.Tensor,
        store_ids: tf.Tensor,
        profile: tf.Tensor,
        profile_numbers: tf.Tensor,
        now: tf.Tensor,
        exclude: tf.Tensor,
        k: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Answers from a history and a profile given in the request, either of which may be empty.

        What tables would not hold is left out or unknown here too: see `clean_history` and `clean_profile_numbers`.

        Args:
            article_ids: `[batch, length]` string, empty strings where a history is shorter.
            times: `[batch, length]` int64, seconds since 1970, in any order.
            prices: `[batch, length]` float32, paid per unit, NaN where unknown.
            quantities: `[batch, length]` int32.
            discounts: `[batch, length]` float32, share off the list price, NaN where unknown.
            sales_channel_ids: `[batch, length]` int32, 0 where unknown.
            store_ids: `[batch, length]` string, empty where unknown.
            profile: `[batch, num_features]` string, the categorical profile features in the order of the pipeline, empty
                strings where unknown.
            profile_numbers: `[batch, num_numbers]` float32, the numeric ones, NaN where unknown.
            now: `[batch]` int64; events at or after it are not seen.
            exclude: As in `by_customer`.
            k: As in `by_customer`.

        Returns:
            As `by_customer`.
        """
        events = {
            "article_index": self._articles.to_index(article_ids),
            "time": times,
            "price": prices,
            "quantity": quantities,
            "discount": discounts,
            "sales_channel_id": sales_channel_ids,
            "store_index": self._stores(store_ids),
        }
        stranger = self._histories.empty(tf.shape(now)[0])
        numbers = clean_profile_numbers(profile_numbers, self._profile_numbers)
        stranger = stranger._replace(profile=self._profile_vocabulary(profile), profile_numbers=numbers)
        return self._outputs(clean_history(events, now, stranger), now, k, exclude)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Traces one signature for each purpose, every input with a batch dimension."""
        spec = tf.TensorSpec
        customer_id = spec([None], tf.string, "customer_id")
        exclude = spec([None, None], tf.string, "exclude")
        k = spec([None], tf.int32, "k")

        by_customer = tf.function(self.by_customer, input_signature=(customer_id, exclude, k), autograph=False)

        @tf.function(input_signature=(customer_id,), autograph=False)
        def default(customer_id: tf.Tensor) -> dict[str, tf.Tensor]:
            batch = tf.shape(customer_id)[0]
            answer: dict[str, tf.Tensor] = by_customer(customer_id, tf.fill([batch, 0], ""), tf.fill([batch], self._k))
            return answer

        by_history = tf.function(
            self.by_history,
            autograph=False,
            input_signature=(
                spec([None, None], tf.string, "article_ids"),
                spec([None, None], tf.int64, "times"),
                spec([None, None], tf.float32, "prices"),
                spec([None, None], tf.int32, "quantities"),
                spec([None, None], tf.float32, "discounts"),
                spec([None, None], tf.int32, "sales_channel_ids"),
                spec([None, None], tf.string, "store_ids"),
                spec([None, self._histories.num_features], tf.string, "profile"),
                spec([None, self._histories.num_numbers], tf.float32, "profile_numbers"),
                spec([None], tf.int64, "now"),
                exclude,
                k,
            ),
        )
        functions = {"serving_default": default, "by_customer": by_customer, "by_history": by_history}
        if self._tower is not None:
            embed = partial(self.embed, self._tower)
            functions["embed"] = tf.function(embed, input_signature=(customer_id,), autograph=False)
        return {name: function.get_concrete_function() for name, function in functions.items()}
