import tomllib
from pathlib import Path

import pytest

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import change, load_config, read_setting, write_pipeline
from tfrs_fashion.settings.pipeline import PipelineConfig


def test_settings_are_read_by_their_dotted_names(config: PipelineConfig) -> None:
    assert read_setting(config, "recommender.two_tower.embedding_dim") == 16
    assert read_setting(config, "recommender.als.factors") == 8
    assert read_setting(config, "recommender.two_stage.network.num_cross") == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("splitt.test_days", "unknown setting `splitt.test_days`; did you mean `split`?"),
        (
            "recommender.two_towr.epochs",
            "unknown setting `recommender.two_towr.epochs`; did you mean `recommender.two_tower`?",
        ),
        ("two_tower.epochs", "unknown setting `two_tower.epochs`, which is now `recommender.two_tower.epochs`."),
        ("generators.gru.epochs", "unknown setting `generators.gru.epochs`, which is now `recommender.gru.epochs`."),
        (
            "recommender.two_tower.epoch",
            "unknown setting `recommender.two_tower.epoch`; did you mean `recommender.two_tower.epochs`?",
        ),
        ("recommender.als.factor", "did you mean `recommender.als.factors`?"),
        ("recommender.gruu.epochs", "did you mean `recommender.gru`?"),
    ],
)
def test_an_unknown_setting_names_its_nearest(config: PipelineConfig, name: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_setting(config, name)
    assert message in str(raised.value)


def test_change_changes_only_the_named_settings(config: PipelineConfig) -> None:
    changed = change(config, {"recommender.two_tower.hidden_dims": [8, 4], "recommender.gru.dropout": 0.25})
    assert changed.recommender["two_tower"].hidden_dims == (8, 4)
    assert read_setting(changed, "recommender.gru.dropout") == 0.25
    back = change(
        changed, {"recommender.two_tower.hidden_dims": [], "recommender.gru.dropout": config.recommender["gru"].dropout}
    )
    assert back == config


def test_change_refuses_a_value_out_of_range(config: PipelineConfig) -> None:
    with pytest.raises(InputError, match=r"recommender\.two_tower\.embedding_dim = 1: .*greater than or equal to 2"):
        change(config, {"recommender.two_tower.embedding_dim": 1})
    with pytest.raises(InputError, match=r"`hidden_dim` is 15, which `num_heads`, 2, does not divide"):
        change(config, {"recommender.attention.hidden_dim": 15})


SOURCE = """# My shop.
[data]
source = "simulator"

[recommender.two_tower]
epochs = 2  # enough

[recommender.als]
factors = 8
"""


def test_a_written_pipeline_loads_with_its_changes_and_keeps_comments(tmp_path: Path) -> None:
    source, path = tmp_path / "shop.toml", tmp_path / "tune" / "best.toml"
    source.write_text(SOURCE)
    path.parent.mkdir()
    write_pipeline(
        source,
        path,
        name="shop",
        overrides=["export.folder=sörved", "recommenders=['popularity_7d', 'gru']", "recommend.recommender=gru"],
        values={
            "recommender.two_tower.epochs": 3,
            "recommender.two_tower.hidden_dims": (8, 4),
            "recommender.gru.dropout": 0.25,
        },
    )
    text = path.read_text(encoding="utf-8")
    assert "# My shop." in text
    assert "# enough" in text
    found = load_config(path)
    assert found.name == "shop"
    assert found.export.folder == "sörved"
    assert found.recommenders == ("popularity_7d", "gru")
    assert found.recommender["two_tower"].epochs == 3
    assert found.recommender["two_tower"].hidden_dims == (8, 4)
    assert read_setting(found, "recommender.als.factors") == 8
    assert read_setting(found, "recommender.gru.dropout") == 0.25
    # All else is as it was.
    wanted = load_config(
        source,
        ["recommender.two_tower.epochs=3", "recommender.two_tower.hidden_dims=[8,4]", "recommender.gru.dropout=0.25"],
    )
    assert change(found, {"export.folder": wanted.export.folder, "recommenders": list(wanted.recommenders), "recommend.recommender": "two_tower"}) == wanted  # fmt: skip


def test_every_pipeline_is_written_and_loaded_alike(root: Path, tmp_path: Path) -> None:
    for source in sorted((root / "pipelines").glob("*.toml")):
        path = tmp_path / source.name
        write_pipeline(source, path, name=source.stem, overrides=[], values={"recommender.two_tower.temperature": 0.05})
        assert change(load_config(source), {"recommender.two_tower.temperature": 0.05}) == load_config(path)
        assert tomllib.loads(path.read_text(encoding="utf-8"))["name"] == source.stem
