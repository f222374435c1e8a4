"""What a report says of its figures as a whole."""

import pandas as pd

from tfrs_fashion.settings.pipeline import PipelineConfig


def make_notes(config: PipelineConfig, judged: pd.DataFrame, bought: pd.DataFrame) -> list[str]:
    """Says what the figures of a window stand for.

    Args:
        config: The pipeline.
        judged: The targets, `customer_index, article_index`.
        bought: The same of all that was bought before the window.
    """
    unsold = int((~judged["article_index"].isin(bought["article_index"].unique())).sum())
    notes = [
        "The SavedModels that are released are fits of the same settings on all data. They cannot be judged here: what "
        "is judged are fits of what came before the window.",
        "Intervals say how sure the figures are for these customers in this window. Another week or another seed varies "
        "too, which they leave out.",
        "Every figure comes from the answers of the exported SavedModels to the customers who bought in the window. "
        "Repeat purchases count.",
        f"Where a recommender has nothing for a customer, or too little, {config.export.fallback} fills the list, as it does in "
        "service; also where what the customer bought before is left out.",
        f"{unsold:,} of the {len(judged):,} (customer, article) pairs bought in the window are of articles never sold "
        "before it. Only recommenders of new arrivals can find them; for the others they count as misses.",
    ]
    if config.data.source == "complete_journey":
        notes.append(
            "The Complete Journey is grocery retail, not fashion. Its Python package calls the tables simulated from "
            "real patterns; the R package of the same tables calls them study data."
        )
    if config.split.kind != "window":
        notes.append(
            f"The split `{config.split.kind}` cuts each customer's own history, so fits have seen what other customers "
            "bought after some of the cutoffs. A window by date has no such advantage."
        )
    if config.tells_probabilities and not config.probabilities_are_of_window:
        notes.append(
            f"{', '.join(config.tells_probabilities)}: the scores are probabilities of a purchase within {config.blend.week_days} "
            "days (`blend.week_days`). The window is another one, so they are not compared with what was bought in it."
        )
    return notes
