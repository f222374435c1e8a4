"""The pair features that rankers read, in words."""

import math

from tfrs_fashion.schema import InputError

# Text for each feature of a key; `{key}` is "it" for the article, or "something of its section" and the like.
_KEY_WORDS = {
    "times": "{key} was in {value:.0f} of the customer's baskets",
    "share": "{key} was in {value:.0%} of the customer's baskets",
    "days_since": "{key} was bought {value:.0f} days ago",
    "days_since_first": "{key} was first bought {value:.0f} days ago",
    "mean_gap_days": "{key} is bought every {value:.0f} days",
    "gap_ratio": "{key} was last bought {value:.1f} times as long ago as the customer usually waits",
    "gap_to_usual": "{key} was last bought {value:.1f} times as long ago as customers usually wait",
}
_CUSTOMER_WORDS = {
    "num_baskets": "the customer has {value:.0f} baskets",
    "num_articles": "the customer bought {value:.0f} times",
    "days_since_basket": "the customer last bought {value:.0f} days ago",
    "basket_gap_days": "the customer buys every {value:.0f} days",
    "articles_per_basket": "the customer's baskets hold {value:.1f} articles",
    "price_paid": "the customer pays {value:.2f} on average",
    "discount_taken": "the customer's discount is {value:.0%} on average",
    "age": "the customer is {value:.0f} years old",
}
_OTHER_WORDS = {
    "best rank": "ranked {value:.0f} by the generator that ranks it highest",
    "num_generators": "proposed by {value:.0f} generators",
    "discount_gap": "its discount is {value:+.0%} from the customer's average",
    "age_gap": "its buyers are {value:+.0f} years from the customer's age",
    "season_share_now": "{value:.0%} of its sales fall into this season",
    "sales_1w": "sold {value:.0f} times in the last week",
    "sales_4w": "sold {value:.0f} times in the last 4 weeks",
    "sales_13w": "sold {value:.0f} times in the last 13 weeks",
    "days_on_sale": "first sold {value:.0f} days ago",
    "days_since_sold": "last sold {value:.0f} days ago",
    "mean_price": "costs {value:.2f} on average",
    "repurchase_rate": "{value:.0%} of its buyers bought it again",
    "buyers": "has {value:.0f} buyers",
    "article": "what was learned about this article",
    "customer": "what was learned about this customer",
    "categories": "what was learned about its categories",
}


def describe_feature(name: str, value: float) -> str:
    """Describes the value of a pair feature in words.

    Args:
        name: Name of the feature as `PairDescriber` gives it, or of an embedding.
        value: Value; NaN if unknown, and an infinite best rank if no generator proposes the article.

    >>> describe_feature("article days_since", 6.0)
    'it was bought 6 days ago'
    >>> describe_feature("rank co_visitation", float("nan"))
    'not proposed by co_visitation'
    """
    first, _space, rest = name.partition(" ")
    unknown = math.isnan(value)
    if name == "best rank" and math.isinf(value):
        return "not proposed by any generator"
    if first == "rank":
        return f"not proposed by {rest}" if unknown else f"ranked {value:.0f} by {rest}"
    if first == "score":
        return f"not proposed by {rest}" if unknown else f"scored {value:.3g} by {rest}"
    if first == "similarity":
        return f"not known to {rest}" if unknown else f"has a similarity of {value:.3g} according to {rest}"
    if name == "price_to_paid" and not unknown:
        return f"costs {math.exp(value):.1f} times what the customer pays on average"
    words, key = _OTHER_WORDS.get(name), "it"
    if first == "customer" and rest in _CUSTOMER_WORDS:
        words = _CUSTOMER_WORDS[rest]
    elif rest in _KEY_WORDS or rest.startswith("decayed_"):
        key = "it" if first == "article" else f"something of its {first.replace('_', ' ')}"
        days = rest.removeprefix("decayed_").removesuffix("d")
        words = _KEY_WORDS.get(rest, "{key} was bought {value:.2f} times, with a half-life of " + f"{days} days")
    if unknown and name not in {"article", "customer", "categories"}:
        return f"{name.replace('_', ' ')} is not known"
    return (words or name.replace("_", " ") + " is {value:.3g}").format(key=key, value=value)


def describe_odds(added: float) -> str:
    """Describes an additive contribution to a logit as a factor of the odds.

    Raises:
        InputError: It is not finite.

    >>> describe_odds(0.6931), describe_odds(-0.6931)
    ('2.00 times the odds', '0.50 times the odds')
    """
    if not math.isfinite(added):
        raise InputError(f"an attribution is {added}; expected a finite number.")
    return f"{math.exp(added):.2f} times the odds"
