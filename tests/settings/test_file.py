import tomllib
from pathlib import Path

import pytest

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import change, read_setting, write_pipeline
from tfrs_fashion.settings.pipeline import PipelineConfig, load_config


def test_settings_are_read_by_their_dotted_names(config: PipelineConfig) -> None:
    assert read_setting(config, "two_tower.embedding_dim") == 16
    assert read_setting(config, "generators.als.factors") == 8
    assert read_setting(config, "generators.two_stage.network.num_cross") == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_towr.epochs", "unknown setting `two_towr.epochs`; did you mean `two_tower`?"),
        ("two_tower.epoch", "unknown setting `two_tower.epoch`; did you mean `two_tower.epochs`?"),
        ("generators.als.factor", "did you mean `generators.als.factors`?"),
        ("generators.gruu.epochs", "did you mean `generators.gru`?"),
    ],
)
def test_an_unknown_setting_names_its_nearest(config: PipelineConfig, name: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_setting(config, name)
    assert message in str(raised.value)


def test_a_changed_pipeline_differs_in_that_alone(config: PipelineConfig) -> None:
    changed = change(config, {"two_tower.hidden_dims": [8, 4], "generators.gru.dropout": 0.25})
    assert changed.two_tower.hidden_dims == (8, 4)
    assert read_setting(changed, "generators.gru.dropout") == 0.25
    back = change(changed, {"two_tower.hidden_dims": [], "generators.gru.dropout": config.generators["gru"].dropout})
    assert back == config


def test_a_value_out_of_range_is_told(config: PipelineConfig) -> None:
    with pytest.raises(InputError, match=r"two_tower\.embedding_dim = 1: .*greater than or equal to 2"):
        change(config, {"two_tower.embedding_dim": 1})
    with pytest.raises(InputError, match=r"`hidden_dim` is 15, which `num_heads`, 2, does not divide"):
        change(config, {"generators.attention.hidden_dim": 15})


SOURCE = """# My shop.
[data]
source = "simulator"

[two_tower]
epochs = 2  # enough

[generators.als]
factors = 8
"""


def test_a_written_pipeline_is_read_as_it_was_meant(tmp_path: Path) -> None:
    source, path = tmp_path / "shop.toml", tmp_path / "tune" / "best.toml"
    source.write_text(SOURCE)
    path.parent.mkdir()
    write_pipeline(
        source,
        path,
        name="shop",
        overrides=["export.folder=sörved", "recommenders=['popularity_7d', 'gru']", "recommend.recommender=gru"],
        values={"two_tower.epochs": 3, "two_tower.hidden_dims": (8, 4), "generators.gru.dropout": 0.25},
    )
    text = path.read_text(encoding="utf-8")
    assert "# My shop." in text
    assert "# enough" in text
    found = load_config(path)
    assert found.name == "shop"
    assert found.export.folder == "sörved"
    assert found.recommenders == ("popularity_7d", "gru")
    assert found.two_tower.epochs == 3
    assert found.two_tower.hidden_dims == (8, 4)
    assert read_setting(found, "generators.als.factors") == 8
    assert read_setting(found, "generators.gru.dropout") == 0.25
    # All else is as it was.
    wanted = load_config(source, ["two_tower.epochs=3", "two_tower.hidden_dims=[8,4]", "generators.gru.dropout=0.25"])
    assert change(found, {"export.folder": wanted.export.folder, "recommenders": list(wanted.recommenders), "recommend.recommender": "two_tower"}) == wanted  # fmt: skip


def test_every_pipeline_can_be_written_anew(root: Path, tmp_path: Path) -> None:
    for source in sorted((root / "pipelines").glob("*.toml")):
        path = tmp_path / source.name
        write_pipeline(source, path, name=source.stem, overrides=[], values={"two_tower.temperature": 0.05})
        assert change(load_config(source), {"two_tower.temperature": 0.05}) == load_config(path)
        assert tomllib.loads(path.read_text(encoding="utf-8"))["name"] == source.stem
