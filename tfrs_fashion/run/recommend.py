"""The stage `recommend`: a released artifact's recommendations for every customer, or a submission to Kaggle."""

from pathlib import Path

from ibis import _

from tfrs_fashion.data.customers import read_customers
from tfrs_fashion.data.raw import make_dialect
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.run.release import release, released_folder
from tfrs_fashion.run.report import ids_by_index
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.serving.batch import (
    SUBMITTED,
    load_artifact,
    recommend_batches,
    write_recommendations,
    write_submission,
)
from tfrs_fashion.serving.export import latest_artifact


def _bought_articles(workspace: Workspace, customers: list[str]) -> dict[str, list[str]]:
    pairs = workspace.tables.transactions.select("customer_id", "article_id").distinct()
    pairs = pairs.filter(_.customer_id.isin(customers)).order_by(["customer_id", "article_id"]).execute()
    return {str(key): rows.tolist() for key, rows in pairs.groupby("customer_id")["article_id"]}


def _read_request(workspace: Workspace, path: Path) -> list[str]:
    data = workspace.config.data
    mapped = (data.customers.customer_id, data.transactions.customer_id)
    names = tuple(dict.fromkeys(name for name in ("customer_id", *mapped) if name))
    customers, num_left_out = read_customers(path, names=names, dialect=make_dialect(data))
    if num_left_out:
        workspace.messages.append(f"{path}: {num_left_out:,} empty or repeated id(s) left out")
    return customers


def recommend(workspace: Workspace, *, customers: Path | None = None, force: bool = False) -> None:
    """Writes `recommendations/` for every customer, or for those in a file, from the released artifact."""
    requested = None if customers is None else _read_request(workspace, customers)
    release(workspace)
    config = workspace.config.recommend
    known = [str(customer) for customer in ids_by_index(workspace.tables)[0]]
    served = known if requested is None else requested
    folder = workspace.folder / "recommendations"
    artifact = latest_artifact(released_folder(workspace, config.recommender))
    expected = fingerprint("recommend", stored_fingerprint(artifact), str(artifact), config.model_dump(), requested)

    def write(partial: Path) -> None:
        batches = recommend_batches(
            load_artifact(artifact),
            served,
            k=config.k,
            batch_size=config.batch_size,
            exclude=_bought_articles(workspace, served) if config.exclude_bought else None,
            console=workspace.console,
        )
        rows = write_recommendations(batches, partial)
        workspace.messages.append(f"{rows:,} recommendations for {len(served):,} customers, by {artifact}")

    workspace.write_stage(folder, expected, write, force=force)
    if num_unknown := len(set(served) - set(known)):
        workspace.messages.append(
            f"{num_unknown:,} of {len(served):,} customers are unknown: served without a history"
        )
    workspace.messages += [f"recommendations: {folder / f'recommendations.{kind}'}" for kind in ("parquet", "csv")]


def submit(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `submission/submission.csv` for Kaggle: a line for every customer, by the artifact with its fallback."""
    release(workspace)
    config, folder = workspace.config.recommend, workspace.folder / "submission"
    customers = [str(customer) for customer in ids_by_index(workspace.tables)[0]]
    artifact = latest_artifact(released_folder(workspace, config.recommender))

    def write(partial: Path) -> None:
        batches = recommend_batches(
            load_artifact(artifact),
            customers,
            k=SUBMITTED,
            batch_size=config.batch_size,
            exclude=_bought_articles(workspace, customers) if config.exclude_bought else None,
            console=workspace.console,
        )
        num_short = write_submission(batches, partial, customer_id=customers)
        workspace.messages.append(
            f"{len(customers):,} customers, {num_short:,} with fewer than {SUBMITTED} articles, by {artifact}, filled "
            f"by {workspace.config.export.fallback}"
        )

    settings = config.model_dump(exclude={"k"})
    expected = fingerprint("submit", stored_fingerprint(artifact), str(artifact), settings)
    workspace.write_stage(folder, expected, write, force=force)
    workspace.messages.append(f"submission: {folder / 'submission.csv'}")
