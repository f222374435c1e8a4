"""What a search tries where settings depend on others, and which searches are refused; see test_tune for whole ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import change, read_default, read_setting
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.tuning.plan import SearchPlan

PIPELINE = Path(__file__).parent.parent.parent / "pipelines" / "tiny.toml"
SPACE = (
    '"generators.gru.tower"={type="choice",values=["gru","attention"]},'
    '"generators.gru.masked_share"={type="float",low=0.0,high=0.5,when={"generators.gru.tower"=["attention"]}}'
)

# What towers that guess hidden purchases may be told.
EVENTS = 'generators.gru.event_features=["gap","season"]'


def make_plan(*overrides: str, space: str = SPACE) -> SearchPlan:
    return SearchPlan(load_config(PIPELINE, ["tune.recommender=gru", EVENTS, f"tune.space={{{space}}}", *overrides]))


def of_gru(**values: Any) -> dict[str, Any]:
    return {f"generators.gru.{name}": value for name, value in values.items()}


def test_a_setting_that_one_tower_alone_takes_is_searched_with_that_tower() -> None:
    plan = make_plan()
    assert plan.own == of_gru(tower="gru", masked_share=0.0)
    plan.check()
    assert plan.complete(of_gru(tower="attention", masked_share=0.3)) == of_gru(tower="attention", masked_share=0.3)
    # It mattered with neither, and stays what the pipeline says.
    assert plan.complete(of_gru(tower="gru")) == of_gru(tower="gru")


def test_what_mattered_with_the_pipelines_own_tower_is_left_out_with_another() -> None:
    plan = make_plan("generators.gru.tower=attention", "generators.gru.masked_share=0.3")
    plan.check()
    told = plan.complete(of_gru(tower="gru"))
    assert told == of_gru(tower="gru", masked_share=0.0)
    assert read_setting(change(plan.config, told), "generators.gru.masked_share") == 0.0


def test_a_condition_on_a_condition_is_followed() -> None:
    space = (
        SPACE + ',"generators.gru.dropout"={type="choice",values=[0.1,0.2],when={"generators.gru.masked_share"=[0.3]}}'
    )
    space = space.replace('{type="float",low=0.0,high=0.5,', '{type="choice",values=[0.0,0.3],')
    plan = make_plan("generators.gru.dropout=0.2", space=space)
    plan.check()
    assert plan.complete(of_gru(tower="gru", masked_share=0.3, dropout=0.1)) == of_gru(tower="gru")
    assert plan.complete(of_gru(tower="attention", masked_share=0.3, dropout=0.1)) == of_gru(
        tower="attention", masked_share=0.3, dropout=0.1
    )


def test_a_value_that_no_tower_of_its_condition_takes_is_refused() -> None:
    with pytest.raises(InputError, match="masked_share"):
        make_plan(space=SPACE.replace('=["attention"]', '=["gru"]')).check()


def test_defaults_are_those_of_the_section() -> None:
    config = load_config(PIPELINE, ["two_tower.embedding_dim=24"])
    assert read_setting(config, "two_tower.embedding_dim") == 24
    assert read_default(config, "two_tower.embedding_dim") == type(config.two_tower)().embedding_dim
    assert read_default(config, "generators.gru.kind") == "sequential"


def test_hyperband_is_refused_a_space_that_its_first_round_would_use_up() -> None:
    told = {"two_tower.embedding_dim": {"type": "choice", "values": [8, 16]}}
    told["two_tower.num_steps"] = {"type": "int", "low": 0, "high": 2}
    space = ",".join(
        f'"{name}"={{{", ".join(f"{k}={json.dumps(v)}" for k, v in told[name].items())}}}' for name in told
    )
    settings = ["two_tower.embedding_dim=16", "two_tower.epochs=9", "tune.recommender=two_tower"]
    settings += [f"tune.space={{{space}}}", "tune.algorithm=hyperband"]
    with pytest.raises(InputError, match=r"6 settings at most, and Hyperband draws 17 in a sweep of 9 epochs"):
        SearchPlan(load_config(PIPELINE, settings)).check()


def test_categories_are_not_searched_by_what_they_measure() -> None:
    config = load_config(PIPELINE)
    named = list(config.features.categorical)
    space = f'"features.categorical"={{type="choice",values={json.dumps([named, named[:1]])}}}'
    settings = [f"tune.space={{{space}}}", "tune.recommender=two_tower"]
    SearchPlan(load_config(PIPELINE, settings)).check()
    with pytest.raises(InputError, match="measured by them"):
        SearchPlan(load_config(PIPELINE, [*settings, "tune.objective=diversity@12"])).check()


def test_a_setting_without_quotes_is_told_to_take_them() -> None:
    with pytest.raises(InputError, match=r'in quotes: "two_tower\.embedding_dim" = '):
        load_config(PIPELINE, ['tune.space={two_tower={embedding_dim={type="int",low=4,high=8}}}'])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tune.recommender=two_towr"], "nothing makes `two_towr`; did you mean `two_tower`"),
        (["tune.objective=mapp"], "has no length such as map@12"),
        (['tune.space={"two_tower.learning_rat"={type="float",low=0.1,high=0.2}}'], "tune.space: unknown setting"),
    ],
)
def test_what_is_misspelt_is_told_with_what_was_meant(settings: list[str], message: str) -> None:
    told = ["tune.recommender=two_tower", "evaluation.full_ranking_customers=0", *settings]
    with pytest.raises(InputError, match=message):
        SearchPlan(load_config(PIPELINE, told)).check()
