"""Judging: artifacts asked for every customer of a window, and the report over their answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console

from tfrs_fashion.data.split import days_before
from tfrs_fashion.evaluation.checks.doctor import RankerTraining, examine
from tfrs_fashion.evaluation.metrics.bootstrap import compare_recommenders
from tfrs_fashion.evaluation.metrics.table_checks import check_candidates, check_target_ranks
from tfrs_fashion.evaluation.metrics.target_ranks import draw_rankable
from tfrs_fashion.evaluation.report.cluster_sections import ClusterSection, describe_articles, describe_customers
from tfrs_fashion.evaluation.report.clusters import MAX_FITTED, fit_clusters
from tfrs_fashion.evaluation.report.full_rankings import describe_ranking
from tfrs_fashion.evaluation.report.page import write_report
from tfrs_fashion.evaluation.report.reliability import describe_reliability
from tfrs_fashion.evaluation.report.scorecard import describe_purchases
from tfrs_fashion.evaluation.report.verdict import decide
from tfrs_fashion.features.history_lookups import list_absent_sections
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.run.evidence import gather_purchases, make_answers
from tfrs_fashion.run.inference import embed_customers, rank_targets
from tfrs_fashion.run.notes import make_notes
from tfrs_fashion.run.scoring import Scoring
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, RowCount, Tables
from tfrs_fashion.serving.batch import load_artifact, recommend_batches, to_candidates
from tfrs_fashion.serving.export import artifact_hash
from tfrs_fashion.settings.pipeline import PipelineConfig

_KINDS = ("candidates", "candidates_new")


def ids_by_index(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Returns all customer ids and all article ids, in the order of their indices."""
    customers = tables.customers.order_by("customer_index").customer_id.execute()
    articles = tables.articles.order_by("article_index").article_id.execute()
    return customers.to_numpy(dtype=object), articles.to_numpy(dtype=object)


def write_candidates(
    artifact: Path,
    folder: Path,
    *,
    tables: Tables,
    bought: pd.DataFrame,
    customers: np.ndarray,
    k: int,
    batch_size: int,
    console: Console,
) -> None:
    """Asks an artifact for every customer: `candidates.parquet`, and without what each bought, `candidates_new.parquet`.

    Args:
        artifact: A version's folder.
        folder: Where to write.
        tables: Indexed tables.
        bought: See `run.scoring.bought_pairs`.
        customers: `[num_customers]` customer indices, ascending.
        k: Candidates a customer.
        batch_size: Customers a call.
        console: Where progress is shown.
    """
    customer_id, article_id = ids_by_index(tables)
    ask = load_artifact(artifact)
    before = bought[bought["customer_index"].isin(customers)]
    before = pd.DataFrame(
        {
            "customer_id": customer_id[before["customer_index"] - FIRST_INDEX],
            "article_id": article_id[before["article_index"] - FIRST_INDEX],
        }
    )
    exclude = {str(customer): rows.tolist() for customer, rows in before.groupby("customer_id")["article_id"]}
    for kind, left_out in zip(_KINDS, (None, exclude), strict=True):
        answers = recommend_batches(
            ask,
            customer_id[customers - FIRST_INDEX].tolist(),
            k=k,
            batch_size=batch_size,
            exclude=left_out,
            console=console,
            description=f"{artifact.parent.name} {kind}",
        )
        candidates = to_candidates(answers, customer_id=customer_id, article_id=article_id)
        check_candidates(
            candidates,
            num_articles=len(article_id),
            num_customers=len(customer_id),
            where=f"{artifact.parent.name} {kind}",
        )
        candidates.to_parquet(folder / f"{kind}.parquet", index=False)


def write_target_ranks(
    folder: Path, *, recommender: Recommender, view: View, judged: pd.DataFrame, num_customers: int, seed: int
) -> None:
    """Writes where a recommender that ranks every article in store puts what was bought, and how many numbers it holds.

    These are `target_ranks.parquet` and `size.json`.

    Args:
        folder: Where to write.
        recommender: Fitted from the view.
        view: What it was fitted from.
        judged: The targets; see `evaluation.metrics.target_ranks.find_rankable` for those that count.
        num_customers: So many of their customers are drawn by chance, at most.
        seed: Fixes who they are, and where what is not named stands.
    """
    drawn = draw_rankable(judged, view.articles.in_store, num_customers=num_customers, seed=seed)
    ranks = rank_targets(recommender, view, drawn, seed=seed)
    check_target_ranks(ranks, num_articles=view.articles.num_articles, where=f"{recommender.name} target ranks")
    ranks.to_parquet(folder / "target_ranks.parquet", index=False)
    assert isinstance(recommender, tf.Module)
    size = sum(int(np.prod(variable.shape)) for variable in recommender.variables)
    (folder / "size.json").write_text(json.dumps({"num_parameters": size}), encoding="utf-8")


def find_clusters(
    towers: TwoTower, view: View, judged: pd.DataFrame, *, config: PipelineConfig
) -> list[ClusterSection]:
    """Clusters the articles in store, and customers of the window with a history, by the towers' embeddings.

    Embedding all customers of a large window takes minutes, so at most `MAX_FITTED` are taken, by chance.

    Args:
        towers: Fitted from the view.
        view: What they were fitted from.
        judged: The targets; only whose they are is read.
        config: The pipeline.

    Returns:
        A section of the report on articles and one on customers, without those of which there are none.
    """
    settings = {"num_clusters": config.evaluation.num_clusters, "seed": config.seed}
    told: dict[str, Any] = {
        "tables": view.tables,
        "roles": {role: getattr(config.features.roles, role) for role in ("category", "section", "colour")},
        "seed": config.seed,
    }
    sections, articles = [], towers.in_store
    # The last column is the bias.
    if len(articles.article_index):
        since = days_before(view.split.as_of, config.split.in_store_days)
        found = fit_clusters(articles.embedding[:, :-1], **settings)
        sections.append(describe_articles(found, articles.article_index, since=since, **told))
    has_history = np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX
    customers = np.intersect1d(judged["customer_index"], has_history).astype(np.int32)
    if len(customers):
        told["chosen_from"] = len(customers)
        customers = np.sort(np.random.default_rng(config.seed).permutation(customers)[:MAX_FITTED])
        embedding = embed_customers(towers, view, customers, batch_size=config.recommend.batch_size)
        sections.append(describe_customers(fit_clusters(embedding[:, :-1], **settings), customers, **told))
    return sections


def count_unseen(view: View, customers: np.ndarray) -> tuple[RowCount, ...]:
    """Counts values that are out of vocabulary: not seen before the cutoff, or too rarely to be learned from.

    Args:
        view: What the artifacts were fitted from.
        customers: `[any]` int32, those judged; who was not known before the cutoff has no profile at all.

    Returns:
        For each feature with such values the customers judged, and the articles in store, that have one.
    """
    known = customers[customers < len(view.profiles.categorical)]
    profiles = zip(view.profile_vocabulary, view.profiles.categorical[known].T, strict=True)
    articles = ((name, index[view.articles.in_store]) for name, index in view.articles.categorical.items())
    found = [
        RowCount(table, f"{which}, whose `{name}` is out of vocabulary", int((index == OUT_OF_VOCABULARY_INDEX).sum()))
        for table, which, features in (("customers", "judged", profiles), ("articles", "in store", articles))
        for name, index in features
    ]
    return tuple(count for count in found if count.rows)


def write_judgement(
    folder: Path,
    *,
    scoring: Scoring,
    candidates: Mapping[str, Path],
    artifacts: Mapping[str, Path],
    split: dict[str, Any],
    counts: Sequence[RowCount],
    curves: dict[str, Any],
    towers: TwoTower | None = None,
    embeddings: Mapping[str, np.ndarray] | None = None,
    blend: dict[str, Any] | None = None,
    rankers: Sequence[RankerTraining] = (),
    ranked: Mapping[str, Path] | None = None,
) -> None:
    """Writes the report over the candidates of all artifacts; see `evaluation.report.page.write_report`.

    Beside it goes `customers.parquet`: `customer_id`, and for each artifact the customer's `map` at the first k.

    Args:
        folder: Where to write.
        scoring: What the scorecards share; its view is what the artifacts were fitted from.
        candidates: Folder of each artifact's candidates.
        artifacts: Folder of each artifact.
        split: The dates, for the report.
        counts: What was dropped, changed or missing, by rule.
        curves: Training curves of each model.
        towers: Whose embeddings are clustered; None leaves clusters out.
        embeddings: `[num_in_store, dim]` float32 of what is in store, of each recommender that has such.
        blend: What the blend was chosen by; see `evaluation.report.contributions.BlendEvidence`.
        rankers: What each ranker has learned from, for the doctor.
        ranked: Folder of each recommender's target ranks, if there are any.
    """
    config, view, tables, judged = scoring.config, scoring.view, scoring.tables, scoring.judged
    evaluation = config.evaluation
    unseen = count_unseen(view, judged["customer_index"].unique())
    settings: dict[str, Any] = {"num_samples": evaluation.bootstrap_samples, "seed": config.seed}
    scorecards, by_customer, probable, answers = {}, {}, {}, []
    for name, place in candidates.items():
        found, found_new = (pd.read_parquet(place / f"{kind}.parquet") for kind in _KINDS)
        scorecards[name] = scoring.judge(found, found_new, num_samples=evaluation.bootstrap_samples)
        if name not in config.new_arrivals:
            by_customer[name] = scorecards[name].by_customer
        if name in config.tells_probabilities and found["score"].between(0, 1, inclusive="neither").any():
            probable[name] = found
        answer = make_answers(
            name,
            found,
            found_new,
            view=view,
            figures=scorecards[name].metrics,
            k=evaluation.k,
            fallback=config.export.fallback,
            is_arrivals=name in config.new_arrivals,
            is_constant=name in config.same_for_all,
            embedding=(embeddings or {}).get(name),
        )
        answers.append(answer)
    ranks = {name: pd.read_parquet(place / "target_ranks.parquet") for name, place in (ranked or {}).items()}
    measured, notes = [], make_notes(config, judged, scoring.bought)
    if probable and config.probabilities_are_of_window:
        ks = (evaluation.k, evaluation.num_candidates)
        measured.append(describe_reliability(probable, judged, ks=ks, **settings))
    if any(len(found) for found in ranks.values()):
        sizes = {name: (place / "size.json").read_text(encoding="utf-8") for name, place in (ranked or {}).items()}
        section = describe_ranking(
            ranks,
            targets=judged,
            in_store=view.articles.in_store,
            cold_start_articles=scoring.never_sold,
            num_parameters={name: json.loads(found)["num_parameters"] for name, found in sizes.items()},
            at_first_purchase=evaluation.full_ranking_at == "first_purchase",
            **settings,
        )
        measured.append(section)
    elif ranks:
        notes.append(
            "Not every article in store is ranked: nothing that was bought in the window was in store before it."
        )
    measures = pd.DataFrame({name: card.by_customer for name, card in scorecards.items()})
    measures.insert(0, "customer_id", ids_by_index(tables)[0][measures.index.to_numpy() - FIRST_INDEX])
    measures.to_parquet(folder / "customers.parquet", index=False)
    told: dict[str, Any] = {
        "baselines": [name for name in evaluation.baselines if name in by_customer],
        "metric": f"map@{evaluation.k}",
        **settings,
    }
    write_report(
        folder,
        split=split,
        customers=judged["customer_index"].nunique(),
        artifact={name: artifact_hash(place) for name, place in artifacts.items()},
        recommenders=scorecards,
        bought=describe_purchases(judged, scoring.statistics, k=evaluation.k, **settings),
        verdict=decide(by_customer, **told) if by_customer else None,
        comparisons=compare_recommenders(by_customer, **told),
        counts=(*counts, *list_absent_sections(tables.articles, config.features.roles), *unseen),
        notes=notes,
        descriptions=config.descriptions,
        training_curves=curves,
        clusters=() if towers is None else find_clusters(towers, view, judged, config=config),
        examination=examine(
            answers,
            gather_purchases(view, tables.transactions, judged),
            num_customers=int(tables.customers.count().execute()),
            num_articles=int(tables.articles.count().execute()),
            k=evaluation.k,
            rankers=rankers,
        ),
        blend=blend,
        measured=measured,
    )
