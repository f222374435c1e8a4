"""What TensorBoard's projector shows of towers: articles with their names, categories and images, customers by segment."""

from pathlib import Path

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.report.projector import MAX_SPRITES, Projection
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.run.inference import embed_customers
from tfrs_fashion.run.scoring import customer_slices
from tfrs_fashion.schema import FIRST_INDEX, Tables
from tfrs_fashion.settings.pipeline import PipelineConfig


def _project_articles(towers: IndexedTower, view: View, tables: Tables, *, config: PipelineConfig) -> Projection:
    """The articles in store that sold best."""
    images = config.features.images.folder
    limit = min(config.tensorboard.num_projected, MAX_SPRITES) if images else config.tensorboard.num_projected
    sold = view.articles.num_baskets[towers.in_store.article_index]
    chosen = np.sort(np.argsort(-sold, kind="stable")[:limit])
    wanted = ["description", *config.features.categorical]
    columns = [name for name in dict.fromkeys(wanted) if name in tables.articles.columns]
    paths = ["image_path"] if images and "image_path" in tables.articles.columns else []
    listed = tables.articles.select("article_index", "article_id", *columns, *paths).execute()
    listed = listed.set_index("article_index").loc[towers.in_store.article_index[chosen]]
    name = listed["description"] if "description" in columns else listed["article_id"]
    labels = pd.DataFrame({"name": name, "article_id": listed["article_id"], "baskets": sold[chosen]})
    labels = labels.assign(**{column: listed[column].astype("string") for column in columns if column != "description"})
    pictures = None
    if paths:
        pictures = [Path(images) / path if isinstance(path, str) and path else None for path in listed["image_path"]]
    # The last column is the bias.
    return Projection("articles", towers.in_store.embedding[chosen, :-1], labels, pictures)


def _project_customers(
    towers: IndexedTower, view: View, tables: Tables, *, config: PipelineConfig
) -> Projection | None:
    """Customers with a history, drawn by the seed."""
    bought = np.flatnonzero(np.diff(view.timelines.row_splits)).astype(np.int32) + FIRST_INDEX
    drawn = np.random.default_rng(config.seed).permutation(bought)[: config.tensorboard.num_projected]
    customers = np.sort(drawn)
    if not len(customers):
        return None
    labels = pd.DataFrame({"customer_id": view.timelines.customer_id[customers - FIRST_INDEX]})
    slices = customer_slices(view, tables, pd.DataFrame({"customer_index": customers}))
    for group, members in slices.items():
        dimension, _equals, value = group.partition("=")
        if dimension not in labels:
            labels[dimension] = "-"
        labels.loc[np.isin(customers, members), dimension] = value
    embedding = embed_customers(towers, view, customers, batch_size=config.recommend.batch_size)
    return Projection("customers", embedding[:, :-1], labels)


def project(towers: IndexedTower, view: View, tables: Tables, *, config: PipelineConfig) -> list[Projection]:
    """Returns the articles and the customers of towers as the projector shows them.

    Args:
        towers: Fitted from the view.
        view: What they were fitted from.
        tables: Indexed tables.
        config: The pipeline; `tensorboard.num_projected` is above 0.
    """
    found = [_project_articles(towers, view, tables, config=config)] if len(towers.in_store.article_index) else []
    customers = _project_customers(towers, view, tables, config=config)
    return found if customers is None else [*found, customers]
