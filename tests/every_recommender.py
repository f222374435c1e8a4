"""Recommenders of every kind in the tiny pipeline, which the contract, leakage and serving tests enumerate."""

from tfrs_fashion.settings.recommenders import PRESETS

# Popularity by each kind of group.
GROUPED = {
    "popularity_age_band": "age_band",
    "popularity_channel": "sales_channel_id",
    "popularity_store": "store_id",
    "popularity_garment_group": "garment_group",
}
# A kind without a preset, and settings that change what is computed.
OTHERS = {
    "two_tower_7d": "{kind='restricted', days=7}",
    "lstm_dna": "{kind='sequential', tower='lstm', hidden_dim=256, loss='sampled_sigmoid', vectors_of='fashion_dna', "
    "event_features=['gap', 'season'], epochs=1}",
    "basket_mlp_deep": "{kind='basket_mlp', hidden_dims=[500, 100], epochs=1}",
    "base_two_tower_one_hot_deep": "{kind='base_two_tower', encoding='one_hot', hidden_dims=[256, 128], epochs=1}",
}
# Of recommenders that differ in a number alone one is enough.
_ALIKE = {"popularity_30d", "basket_mlp", "base_two_tower"}
# Recommenders that are fitted from a view alone; blends and two stages need past weeks.
SINGLE = (*(name for name, made in PRESETS.items() if not made.learns_from_weeks and name not in _ALIKE), *OTHERS)
# What makes the tiny pipeline hold them, each trained for one epoch.
SETTINGS = (
    *(f"recommender.{name}={{kind='popularity', by='{by}', days=30}}" for name, by in GROUPED.items()),
    *(f"recommender.{name}={settings}" for name, settings in OTHERS.items()),
    *(f"recommender.{name}.epochs=1" for name, made in PRESETS.items() if hasattr(made, "epochs")),
    "recommender.basket_pairs.min_baskets=2",
)
