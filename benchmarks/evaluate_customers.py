"""How long all metrics of a report take, with intervals, for as many customers as H&M has, and how much memory.

Lists and purchases are invented: popularity is skewed as in a shop, most customers buy little and a few buy much, and some
of what is shown is bought. The accuracy of a sample is measured by `pytrec_eval` (NIST's trec_eval) in the same run, which
must find the same figures. Our process and the peer's are separate, so that the highest memory of each is its own.

Usage: python benchmarks/evaluate_customers.py [--customers 1371980] [--articles 105542] [--peer-customers 100000]
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.evaluation.metrics.beyond_accuracy import ArticleStatistics
from tfrs_fashion.evaluation.metrics.near_misses import index_groups
from tfrs_fashion.evaluation.metrics.pair_keys import contains, pair_keys
from tfrs_fashion.evaluation.report.scorecard import describe_purchases, evaluate_recommender
from tfrs_fashion.schema import FIRST_INDEX

FULL_CUSTOMERS, FULL_ARTICLES, K, DIM = 1_371_980, 105_542, 12, 64
AGREED = {"map": "map_cut", "recall": "recall", "precision": "P", "ndcg": "ndcg_cut", "hit_rate": "success"}


def draw_articles(random: np.random.Generator, size: int, num_articles: int) -> np.ndarray:
    """Draws article_index, the first ones most often."""
    return (num_articles * random.random(size) ** 4).astype(np.int32) + FIRST_INDEX


def make_lists(num_customers: int, num_articles: int, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Invents Candidates, K a customer without repetition, and what each customer bought; a tenth of it was shown."""
    random = np.random.default_rng(seed)
    customer = np.arange(num_customers, dtype=np.int32) + FIRST_INDEX
    # A stride with no common divisor gives K different articles from one drawn at random.
    first = draw_articles(random, num_customers, num_articles) - FIRST_INDEX
    stride = random.choice([1, 7, 11, 13, 101], num_customers)
    shown = ((first[:, None] + stride[:, None] * np.arange(K)) % num_articles + FIRST_INDEX).astype(np.int32)
    candidates = pd.DataFrame(
        {
            "customer_index": np.repeat(customer, K),
            "article_index": shown.ravel(),
            "rank": np.tile(np.arange(1, K + 1, dtype=np.int32), num_customers),
            "score": np.tile(np.linspace(1, 0, K, dtype=np.float32), num_customers),
            "source": pd.Categorical.from_codes(random.integers(0, 3, num_customers * K), ["als", "gru", "popular"]),
        }
    )
    num_bought = np.minimum(random.geometric(0.3, num_customers), 40)
    buyer = np.repeat(np.arange(num_customers), num_bought)
    bought = draw_articles(random, len(buyer), num_articles)
    is_shown = random.random(len(buyer)) < 0.1
    bought[is_shown] = shown[buyer[is_shown], random.integers(0, K, is_shown.sum())]
    targets = pd.DataFrame({"customer_index": customer[buyer], "article_index": bought})
    return candidates, targets


def make_statistics(num_customers: int, num_articles: int) -> ArticleStatistics:
    random = np.random.default_rng(1)
    embedding = random.normal(size=(num_articles + FIRST_INDEX, DIM)).astype(np.float32)
    place = np.arange(num_articles + FIRST_INDEX)
    return ArticleStatistics(
        in_store=np.arange(FIRST_INDEX, num_articles + FIRST_INDEX),
        num_buyers=(num_customers / (3 + place)).astype(np.int64),
        num_train_customers=num_customers,
        price=np.where(place % 50, 5 + random.gamma(2, 10, len(place)), np.nan),
        content_embedding=embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
        groups={
            "product": index_groups(pd.Series(np.arange(num_articles) // 2)),
            "category": index_groups(pd.Series(np.arange(num_articles) % 130)),
        },
    )


def tell(name: str, seconds: float) -> None:
    """Prints a figure with the highest memory of this process so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {seconds:.1f} s, at most {memory:.2f} GiB with its inputs", flush=True)


def measure_all(customers: int, articles: int) -> None:
    """Computes everything that a report says of one recommender and of the purchases."""
    candidates, targets = make_lists(customers, articles, seed=0)
    statistics = make_statistics(customers, articles)
    history = pd.DataFrame({name: targets[name].sample(frac=1, random_state=2).to_numpy() for name in targets})
    history = history.loc[~contains(np.sort(pair_keys(candidates)), pair_keys(history))]
    members = np.unique(targets["customer_index"])
    slices = {f"activity={part}": members[part::4] for part in range(4)} | {
        f"age={part}": members[part::6] for part in range(6)
    }
    print(f"{customers:,} customers x {K} candidates, {len(targets):,} purchases of {articles:,} articles", flush=True)
    start, used = time.perf_counter(), time.process_time()
    card = evaluate_recommender(
        candidates, candidates, targets, history, statistics, ks=(K,), recall_at=K, slices=slices, num_samples=1000
    )
    bought = describe_purchases(targets, statistics, k=K, num_samples=1000)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    tell(f"{len(card.metrics) + len(bought)} figures, 1,000 bootstrap samples each", seconds)
    print(f"processor time {processor:.1f} s", flush=True)
    for name in (f"map@{K}", f"recall@{K}", f"map@{K}_product", f"map@{K}_new", f"novelty@{K}", f"diversity@{K}"):
        figure = card.metrics[name]
        print(f"  {name} {figure['value']:.5f} ({figure['low']:.5f} to {figure['high']:.5f})", flush=True)


def measure_peer(customers: int, articles: int) -> None:
    """Computes the accuracies of the same lists by both, without intervals, and holds them against each other."""
    import pytrec_eval

    candidates, targets = make_lists(customers, articles, seed=0)
    targets = targets.drop_duplicates()
    start = time.perf_counter()
    ours = measure_accuracy(candidates, targets, k=K)
    tell(f"ours, {customers:,} customers, six accuracies", time.perf_counter() - start)
    wanted: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for customer, article in targets.itertuples(index=False):
        wanted.setdefault(str(customer), {})[str(article)] = 1
    for customer, article, rank in candidates[["customer_index", "article_index", "rank"]].itertuples(index=False):
        run.setdefault(str(customer), {})[str(article)] = -float(rank)
    start = time.perf_counter()
    measures = {f"{name}.{K}" for name in AGREED.values()} | {"recip_rank"}
    judged = pytrec_eval.RelevanceEvaluator(wanted, measures).evaluate(run)
    tell("pytrec_eval, the same from dictionaries that were ready", time.perf_counter() - start)
    found = pd.DataFrame.from_dict(judged, orient="index")
    found.index = found.index.astype(int)
    found = found.loc[ours.index]
    num_bought = targets.groupby("customer_index").size().loc[ours.index]
    # It divides by all that was bought.
    found[f"map_cut_{K}"] *= num_bought / np.minimum(num_bought, K)
    for name in ours:
        theirs = found["recip_rank" if name == "mrr" else f"{AGREED[str(name)]}_{K}"]
        furthest = float((ours[name] - theirs).abs().max())
        print(
            f"  {name}: {ours[name].mean():.6f}, theirs {theirs.mean():.6f}, furthest apart {furthest:.1e}", flush=True
        )
        assert furthest < 1e-9, f"{name} differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=FULL_CUSTOMERS)
    parser.add_argument("--articles", type=int, default=FULL_ARTICLES)
    parser.add_argument("--peer-customers", type=int, default=100_000, help="0 leaves the comparison out")
    options = parser.parse_args()
    runs = [(measure_all, options.customers), (measure_peer, options.peer_customers)]
    for work, customers in runs:
        if not customers:
            continue
        # A new interpreter, which inherits neither memory nor its highest mark.
        process = multiprocessing.get_context("spawn").Process(target=work, args=(customers, options.articles))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
