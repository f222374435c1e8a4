"""Settings of trials under conditions, and searches that are refused; see test_tune for whole searches."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import change, read_default, read_setting
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.tuning.definition import SearchDefinition

PIPELINE = Path(__file__).parent.parent.parent / "pipelines" / "tiny.toml"
SPACE = (
    '"generators.gru.tower"={type="choice",values=["gru","attention"]},'
    '"generators.gru.masked_share"={type="float",low=0.0,high=0.5,when={"generators.gru.tower"=["attention"]}}'
)

# Towers that predict masked purchases take only these.
EVENTS = 'generators.gru.event_features=["gap","season"]'


def define(*overrides: str, space: str = SPACE) -> SearchDefinition:
    return SearchDefinition(
        load_config(PIPELINE, ["tune.recommender=gru", EVENTS, f"tune.space={{{space}}}", *overrides])
    )


def of_gru(**values: Any) -> dict[str, Any]:
    return {f"generators.gru.{name}": value for name, value in values.items()}


def test_conditional_setting_is_left_out_if_its_condition_does_not_hold() -> None:
    definition = define()
    assert definition.own == of_gru(tower="gru", masked_share=0.0)
    definition.check()
    assert definition.complete(of_gru(tower="attention", masked_share=0.3)) == of_gru(
        tower="attention", masked_share=0.3
    )
    # It takes effect in neither, and stays as in the pipeline.
    assert definition.complete(of_gru(tower="gru")) == of_gru(tower="gru")


def test_own_setting_returns_to_its_default_if_its_condition_fails_in_the_trial() -> None:
    definition = define("generators.gru.tower=attention", "generators.gru.masked_share=0.3")
    definition.check()
    values = definition.complete(of_gru(tower="gru"))
    assert values == of_gru(tower="gru", masked_share=0.0)
    assert read_setting(change(definition.config, values), "generators.gru.masked_share") == 0.0


def test_nested_condition_is_followed() -> None:
    space = (
        SPACE + ',"generators.gru.dropout"={type="choice",values=[0.1,0.2],when={"generators.gru.masked_share"=[0.3]}}'
    )
    space = space.replace('{type="float",low=0.0,high=0.5,', '{type="choice",values=[0.0,0.3],')
    definition = define("generators.gru.dropout=0.2", space=space)
    definition.check()
    assert definition.complete(of_gru(tower="gru", masked_share=0.3, dropout=0.1)) == of_gru(tower="gru")
    assert definition.complete(of_gru(tower="attention", masked_share=0.3, dropout=0.1)) == of_gru(
        tower="attention", masked_share=0.3, dropout=0.1
    )


def test_value_that_is_invalid_under_its_condition_is_refused() -> None:
    with pytest.raises(InputError, match="masked_share"):
        define(space=SPACE.replace('=["attention"]', '=["gru"]')).check()


def test_read_default_returns_the_default_of_the_section() -> None:
    config = load_config(PIPELINE, ["two_tower.embedding_dim=24"])
    assert read_setting(config, "two_tower.embedding_dim") == 24
    assert read_default(config, "two_tower.embedding_dim") == type(config.two_tower)().embedding_dim
    assert read_default(config, "generators.gru.kind") == "sequential"


def test_hyperband_is_refused_if_the_space_is_smaller_than_its_draws() -> None:
    parameters = {"two_tower.embedding_dim": {"type": "choice", "values": [8, 16]}}
    parameters["two_tower.num_steps"] = {"type": "int", "low": 0, "high": 2}
    space = ",".join(
        f'"{name}"={{{", ".join(f"{k}={json.dumps(v)}" for k, v in parameters[name].items())}}}' for name in parameters
    )
    settings = ["two_tower.embedding_dim=16", "two_tower.epochs=9", "tune.recommender=two_tower"]
    settings += [f"tune.space={{{space}}}", "tune.algorithm=hyperband"]
    with pytest.raises(InputError, match=r"6 settings at most, and Hyperband draws 17 in a sweep of 9 epochs"):
        SearchDefinition(load_config(PIPELINE, settings)).check()


def test_categories_are_refused_if_the_objective_is_measured_by_them() -> None:
    config = load_config(PIPELINE)
    named = list(config.features.categorical)
    space = f'"features.categorical"={{type="choice",values={json.dumps([named, named[:1]])}}}'
    settings = [f"tune.space={{{space}}}", "tune.recommender=two_tower"]
    SearchDefinition(load_config(PIPELINE, settings)).check()
    with pytest.raises(InputError, match="measured by them"):
        SearchDefinition(load_config(PIPELINE, [*settings, "tune.objective=diversity@12"])).check()


def test_setting_without_quotes_is_refused_with_the_quoted_form() -> None:
    with pytest.raises(InputError, match=r'in quotes: "two_tower\.embedding_dim" = '):
        load_config(PIPELINE, ['tune.space={two_tower={embedding_dim={type="int",low=4,high=8}}}'])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tune.recommender=two_towr"], "unknown recommender `two_towr`; did you mean `two_tower`"),
        (["tune.objective=mapp"], "has no length such as map@12"),
        (['tune.space={"two_tower.learning_rat"={type="float",low=0.1,high=0.2}}'], "tune.space: unknown setting"),
    ],
)
def test_misspelt_names_are_refused_with_the_nearest_one(settings: list[str], message: str) -> None:
    overrides = ["tune.recommender=two_tower", "evaluation.full_ranking_customers=0", *settings]
    with pytest.raises(InputError, match=message):
        SearchDefinition(load_config(PIPELINE, overrides)).check()
