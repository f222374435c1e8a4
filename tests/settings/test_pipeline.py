import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.base import FeaturesConfig, ImagesConfig
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.recommenders import CONFIGS, PRESETS, AlsConfig, ItemKnnConfig, RepurchaseConfig

SMALLEST = '[data]\nsource = "simulator"\n'
PIPELINES = sorted((Path(__file__).parent.parent.parent / "pipelines").glob("*.toml"))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def every_key(section: type[BaseModel] = PipelineConfig, prefix: str = "") -> list[tuple[str, str]]:
    """Every section of a pipeline with every key in it, from the models themselves."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append((prefix, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += every_key(field.annotation, f"{prefix}{name}.")
    if section is PipelineConfig:
        for name, settings in PRESETS.items():
            keys += every_key(type(settings), f"recommender.{name}.")
    return keys


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_pipeline_that_is_shipped_loads(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_there_are_pipelines_to_ship() -> None:
    assert {"tiny", "simulator", "complete_journey"} <= {path.stem for path in PIPELINES}


def test_defaults_fill_what_a_pipeline_leaves_out(pipeline: Path) -> None:
    config = load_config(pipeline)
    assert config == PipelineConfig(name="small", data={"source": "simulator"})  # type: ignore[arg-type]


@pytest.mark.parametrize(("section", "key"), every_key())
def test_an_unknown_key_names_the_nearest_valid_one(pipeline: Path, section: str, key: str) -> None:
    message = refusal(pipeline, f"{section}{key}_=1")
    assert f"unknown key `{section}{key}_`; did you mean `{key}`?" in message
    assert message.startswith(f"{pipeline}: ")


def test_a_key_like_no_other_lists_the_valid_ones(pipeline: Path) -> None:
    message = refusal(pipeline, "export.zzzzzz=1")
    assert "unknown key `export.zzzzzz`; valid keys: fallback, folder, k" in message


def test_all_mistakes_are_reported_at_once(pipeline: Path) -> None:
    message = refusal(pipeline, "sede=1", "split.test_days=0")
    assert "did you mean `seed`?" in message
    assert "`split.test_days`" in message


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("split.test_days=0", 0),
        ("split.share=0", 0),
        ("split.share=1", 1),
        ("split.share=nan", float("nan")),
        ("split.kind=random", "random"),
        ("recommender.two_tower.epochs=1.5", 1.5),
        ("recommender.two_tower.learning_rate=-1", -1),
        ("recommender.two_tower.learning_rate=nan", float("nan")),
        ("recommender.two_tower.time_scales_days=[]", ()),
        ("recommender.two_tower.batch_size=1", 1),
        ("recommender.two_tower.article_dropout=1", 1),
        ("recommender.two_tower.customer_dropout=-0.1", -0.1),
        ("recommender.two_tower.num_bins=0", 0),
        ("recommender.two_tower.categorical_encoding=hash", "hash"),
        ("features.min_articles=0", 0),
        ("features.images.image_size=31", 31),
        ("features.images.network=vgg", "vgg"),
        ("evaluation.num_new_arrivals=0", 0),
        ("evaluation.num_clusters=-1", -1),
        ("evaluation.full_ranking_customers=-1", -1),
        ("index.leaves_to_search_share=1.1", 1.1),
        ("evaluation.bootstrap_samples=9", 9),
        ("recommender.als.alpha=0", 0),
        ("recommender.blend.weeks=0", 0),
        ("data.source=hbase", "hbase"),
        ("data.num_customers=0", 0),
        ('recommend.k="twelve"', "twelve"),
    ],
)
def test_a_value_out_of_range_is_reported_with_its_key_and_value(pipeline: Path, override: str, found: Any) -> None:
    message = refusal(pipeline, override)
    assert f"{pipeline}: `{override.partition('=')[0]}`: " in message
    assert message.endswith(f"(found {found!r}).") or found == ()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("features.categorical=colour", "expected a list (found 'colour')"),
        ("data.transactions.anonymous_ids='0'", "expected a list (found '0')"),
        ("data.customers.fill=1", "expected a table of names (found 1)"),
        ("index=1", "expected a section of keys (found 1)"),
        ("data.path=1", "expected text in quotes (found 1)"),
        ("split.test_days='a'", "expected a whole number (found 'a')"),
        ("split.test_days=[]", "expected a whole number (found [])"),
        ("split.test_days=1.5", "expected a whole number (found 1.5)"),
        ("split.share='a'", "expected a number (found 'a')"),
        ("split.share=[]", "expected a number (found [])"),
        ("features.history=perhaps", "expected true or false (found 'perhaps')"),
        ("features.history=[]", "expected true or false (found [])"),
        ("recommender.two_tower.time_scales_days=[]", "expected a longer list (found [])"),
        ("features.set_separator=''", "expected some text (found '')"),
        ("split.kind=random", "expected 'window', 'last_basket', 'share' or 'leave_one_out' (found 'random')"),
        ("split.test_days=0", "expected greater than or equal to 1 (found 0)"),
    ],
)
def test_a_wrong_type_is_reported_in_plain_words(pipeline: Path, override: str, words: str) -> None:
    assert refusal(pipeline, override).endswith(f"{pipeline}: `{override.partition('=')[0]}`: {words}.")


@pytest.mark.parametrize("value", ["[0.0, 1.0]", "[-3]", "[nan, 1.0]", "[1.0, nan]"])
def test_time_scales_are_above_zero(pipeline: Path, value: str) -> None:
    assert "`time_scales_days` must all be above 0" in refusal(
        pipeline, f"recommender.two_tower.time_scales_days={value}"
    )


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("seed=7", None, "seed", 7),
        ("recommender.two_tower.learning_rate=1e-3", "two_tower", "learning_rate", 0.001),
        ("recommend.exclude_bought=true", "recommend", "exclude_bought", True),
        ("recommender.two_tower.time_scales_days=[1, 2.5]", "two_tower", "time_scales_days", (1.0, 2.5)),
        ("split.kind=last_basket", "split", "kind", "last_basket"),
        ('split.kind="share"', "split", "kind", "share"),
        ("data.path=/a folder/with=sign", "data", "path", "/a folder/with=sign"),
        (" split.test_days =3", "split", "test_days", 3),
        ('features.categorical=["größe"]', "features", "categorical", ("größe",)),
    ],
)
def test_an_override_changes_a_setting(
    pipeline: Path, override: str, section: str | None, key: str, value: Any
) -> None:
    config = load_config(pipeline, [override])
    sections = {**config.recommender, **dict(config)}
    found = getattr(sections[section] if section else config, key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_wins_over_others_and_over_the_file(pipeline: Path) -> None:
    pipeline.write_text(f"seed = 3\n{SMALLEST}", encoding="utf-8")
    assert load_config(pipeline).seed == 3
    assert load_config(pipeline, ["seed=4", "seed=5"]).seed == 5


@pytest.mark.parametrize("override", ["seed", "=1", "seed.=1", ".seed=1", "two tower.epochs=1", ""])
def test_a_malformed_override_is_refused(pipeline: Path, override: str) -> None:
    assert refusal(pipeline, override) == f"--set {override}: expected section.key=value"


def test_a_key_below_a_value_is_refused(pipeline: Path) -> None:
    assert refusal(pipeline, "data.source.kind=1") == "--set data.source.kind=1: `source` is not a section"
    assert "`data`: " in refusal(pipeline, "data=1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    assert refusal(path) == f"{path}: cannot read the pipeline file (No such file or directory)."
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot read the pipeline file (")


@pytest.mark.parametrize("content", [b"[data\n", b"seed = = 1\n", 'name = "größe"\n'.encode("latin-1")])
def test_a_file_that_is_not_toml_is_refused(pipeline: Path, content: bytes) -> None:
    pipeline.write_bytes(content)
    assert refusal(pipeline).startswith(f"{pipeline}: not valid TOML: ")


def test_data_is_required(pipeline: Path) -> None:
    pipeline.write_text("seed = 1\n", encoding="utf-8")
    assert refusal(pipeline) == f"{pipeline}: missing key `data`."


@pytest.mark.parametrize("name", ["a b", "../up", "a/b", "", "größe"])
def test_a_name_must_be_fit_for_a_folder(pipeline: Path, name: str) -> None:
    assert "`name` is " in refusal(pipeline, f'name="{name}"')


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recommenders=[]"], "`recommenders` is empty: name at least one"),
        (["recommenders=['repurchase']"], "`recommenders` must hold `popularity_7d`, which is `export.fallback`"),
        (["export.fallback=popularity_30d"], "`recommenders` must hold `popularity_30d`, which is `export.fallback`"),
        (
            ["export.fallback=als"],
            "`export.fallback` is `als`, which is not of kind popularity; set it to one of popularity_7d, ",
        ),
        (
            ["export.fallback=two_tower"],
            "`export.fallback` is `two_tower`, which is not of kind popularity; set it to one of ",
        ),
        (
            ["export.fallback=popularity_siblings"],
            "`export.fallback` is `popularity_siblings`, which is not of kind popularity",
        ),
        (
            [
                "export.fallback=mine",
                "recommender.mine={kind='popularity', by='colour'}",
                "features.categorical=['colour']",
            ],
            "`export.fallback` is `mine`, which goes by the `colour` of what a customer bought, and has no answer for those "
            "who bought nothing; let it go by a profile feature, or by nothing",
        ),
        (["recommenders=['popularity_7d', 'als', 'als']"], "`recommenders` names one twice"),
        (
            ["recommender.mine={kind='restricted', of='item_knn'}"],
            "`recommender.mine.of` is `item_knn`, which does not score any article it is asked for; set it to one of "
            "two_tower, als, bpr, base_two_tower, fashion_dna, gru, lstm, attention",
        ),
        (["index.kinds=[]"], "`index.kinds` must name each kind once, and at least one"),
        (["index.kinds=['exact', 'exact']"], "`index.kinds` must name each kind once, and at least one"),
        (
            ["recommenders=['popularity_7d']"],
            "which `recommenders` and `index.kinds` do not make; set it to one of popularity_7d",
        ),
        (
            ["index.kinds=['exact']", "recommend.recommender=two_tower_scann"],
            "do not make; set it to one of popularity_7d, repurchase, als, two_tower",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(pipeline: Path, overrides: list[str], message: str) -> None:
    assert re.search(re.escape(message), refusal(pipeline, *overrides))


def test_a_fallback_may_go_by_a_profile_feature(pipeline: Path) -> None:
    settings = [
        "export.fallback=mine",
        "recommender.mine={kind='popularity', by='colour'}",
        "features.profile=['colour']",
    ]
    recommenders = "recommenders=['mine', 'two_tower']"
    # A column of articles too, but customers have one of that name, which is meant.
    config = load_config(pipeline, [*settings, recommenders, "features.categorical=['colour']"])
    assert config.same_for_all == ("mine",)
    assert "mine" in config.fitted


def test_an_unknown_recommender_is_refused(pipeline: Path) -> None:
    message = refusal(pipeline, "recommenders=['popularity_7d', 'two_towers']")
    assert "`recommenders` names the unknown recommender `two_towers`; did you mean `two_tower`?" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "recommender.mine.days=3",
            "missing key `recommender.mine.kind`: the kind of this recommender, one of popularity, ",
        ),
        (
            "recommender.item_knn.similarty=bm25",
            "unknown key `recommender.item_knn.similarty`; did you mean `similarity`?",
        ),
        ("recommender.item_knn.similarity=dot", "`recommender.item_knn.similarity`: "),
        ("recommender.mine.kind=magic", "`recommender.mine`: "),
        ("recommender={'a/b' = {kind='popularity'}}", "`recommender.a/b`: a name may hold only letters, digits and _"),
        (
            "recommender.my-als.kind=als",
            "`recommender.my-als`: a name may hold only letters, digits and _",
        ),
        ("recommender=3", "`recommender`: expected a table of names"),
        (
            "recommender.blend.generators=[]",
            "`recommender.blend.generators` must name each generator once, and at least one",
        ),
        (
            "recommender.blend.generators=['als', 'als']",
            "`recommender.blend.generators` must name each generator once, and at least one",
        ),
        (
            "recommender.blend.generators=['alz']",
            "`recommender.blend.generators` names the unknown recommender `alz`; did you mean `als`?",
        ),
        (
            "recommender.blend.generators=['blend']",
            "`recommender.blend.generators` names `blend`, which is made from a blend",
        ),
        (
            "recommender.two_stage.blend=als",
            "`recommender.two_stage.blend` is `als`, which is not a recommender of kind blend; ",
        ),
    ],
)
def test_recommenders_that_cannot_be_fitted_are_refused(pipeline: Path, override: str, message: str) -> None:
    assert message in refusal(pipeline, override)


@pytest.mark.parametrize(
    ("section", "key", "present"),
    [
        ("[generators.gru]", "generators.gru", "recommender.gru"),
        ("[two_tower]", "two_tower", "recommender.two_tower"),
        ("[blend]", "blend", "recommender.blend"),
    ],
)
def test_a_section_of_the_old_form_is_refused_and_the_new_one_shown(
    pipeline: Path, section: str, key: str, present: str
) -> None:
    pipeline.write_text(f"{SMALLEST}{section}\nepochs = 3\n", encoding="utf-8")
    assert refusal(pipeline) == f"{pipeline}: `[{key}]` is now `[{present}]`."
    pipeline.write_text(SMALLEST, encoding="utf-8")
    override = f"{key}.epochs=3"
    assert refusal(pipeline, override) == f"--set {override}: `{key}.epochs` is now `{present}.epochs`."


def test_a_recommender_of_an_own_name_is_exported_like_that_of_the_preset(pipeline: Path) -> None:
    settings = ["recommender.two_tower_wide.kind=two_tower", "recommender.two_tower_wide.embedding_dim=256"]
    config = load_config(pipeline, [*settings, "recommenders=['popularity_7d', 'two_tower', 'two_tower_wide']"])
    assert config.recommender["two_tower_wide"].embedding_dim == 256
    assert config.recommender["two_tower"].embedding_dim == 128
    assert list(config.servable)[3:] == ["two_tower_wide", "two_tower_wide_scann"]


def test_two_stages_take_the_candidates_of_the_blend_they_name(pipeline: Path) -> None:
    settings = ["recommender.small.kind=blend", "recommender.small.generators=['als', 'repurchase']"]
    settings += [
        "recommender.small.week_days=14",
        "recommender.two_stage.blend=small",
        "recommend.recommender=two_stage",
    ]
    config = load_config(pipeline, [*settings, "recommenders=['popularity_7d', 'two_stage']"])
    assert config.fitted == ("popularity_7d", "als", "repurchase", "two_stage")
    assert config.blend_of("two_stage").week_days == 14
    assert not config.probabilities_are_of_window


def test_a_pipeline_changes_presets_and_adds_recommenders(pipeline: Path) -> None:
    settings = [
        "recommender.als.factors=7",
        "recommender.mine.kind=item_knn",
        "recommender.popularity_30d.kind=repurchase",
    ]
    config = load_config(pipeline, settings)
    assert config.recommender["als"] == AlsConfig(factors=7)
    assert config.recommender["mine"] == ItemKnnConfig()
    # Of another kind, it has nothing of what the name stood for.
    assert config.recommender["popularity_30d"] == RepurchaseConfig()
    assert config.recommender["popularity_7d"] == PRESETS["popularity_7d"]


def test_a_blend_is_fitted_after_its_generators(pipeline: Path) -> None:
    settings = [
        "recommenders=['popularity_7d', 'blend', 'two_tower']",
        "recommender.blend.generators=['als', 'popularity_7d']",
    ]
    config = load_config(pipeline, settings)
    assert config.fitted == ("popularity_7d", "two_tower", "als", "blend")
    # What is fitted for the blend alone is not served.
    assert list(config.servable) == ["popularity_7d", "blend", "two_tower", "two_tower_scann"]


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        ("['exact', 'scann']", {"two_tower": "exact", "two_tower_scann": "scann"}),
        ("['scann', 'exact']", {"two_tower": "scann", "two_tower_exact": "exact"}),
        ("['scann']", {"two_tower": "scann"}),
        ("['exact', 'new_arrivals']", {"two_tower": "exact", "two_tower_new_arrivals": "new_arrivals"}),
    ],
)
def test_the_first_index_carries_the_plain_name(pipeline: Path, kinds: str, names: dict[str, str]) -> None:
    config = load_config(pipeline, [f"index.kinds={kinds}", "recommenders=['popularity_7d', 'two_tower']"])
    expected = {"popularity_7d": ("popularity_7d", None)}
    expected |= {name: ("two_tower", kind) for name, kind in names.items()}  # type: ignore[misc]
    assert config.servable == expected


def test_artifacts_of_new_arrivals_are_listed_by_name(pipeline: Path) -> None:
    # What is judged on articles never sold is known by these names alone.
    recommenders = "recommenders=['popularity_7d', 'popularity_siblings', 'two_tower']"
    config = load_config(pipeline, [recommenders, "index.kinds=['exact', 'new_arrivals']"])
    assert config.new_arrivals == ("popularity_siblings", "two_tower_new_arrivals")
    assert config.same_for_all == ("popularity_7d", "popularity_siblings")


def test_a_config_never_changes_after_loading(pipeline: Path) -> None:
    config = load_config(pipeline)
    with pytest.raises(ValueError, match="frozen"):
        config.split.test_days = 3


def test_the_page_on_images_shows_every_key_with_a_value_that_it_may_have(root: Path) -> None:
    page = (root / "docs" / "guide" / "images.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    shown = tomllib.loads(block)["features"]
    assert set(shown["images"]) == set(ImagesConfig.model_fields)
    assert FeaturesConfig.model_validate(shown).images.network == "mobilenet_v2"


def test_the_page_on_recommenders_shows_a_pipeline_that_loads(root: Path, pipeline: Path) -> None:
    page = (root / "docs" / "guide" / "choosing_a_recommender.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    pipeline.write_text(f"{block}\n[data]\nsource = 'simulator'\n[features]\nprofile = ['age_band']\n")
    config = load_config(pipeline)
    assert set(config.recommenders) <= {"two_tower", *config.recommender}
    reference = (root / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    # Every kind has a section.
    assert [kind for kind in CONFIGS if f'### kind = "{kind}"' not in reference] == []


def test_the_page_on_sequential_towers_shows_pipelines_that_can_be_read(root: Path, pipeline: Path) -> None:
    page = (root / "docs" / "guide" / "sequential.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    fitted = []
    for block in blocks:
        pipeline.write_text(f"{block}\n[data]\nsource = 'simulator'\n")
        fitted.append(load_config(pipeline).fitted)
    assert fitted == [
        ("popularity_7d", "repurchase", "two_tower", "gru"),
        ("popularity_7d", "two_tower", "fashion_dna", "lstm_dna"),
    ]


def test_the_page_on_ranking_shows_a_pipeline_that_can_be_read(root: Path, pipeline: Path) -> None:
    page = (root / "docs" / "guide" / "two_stage.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    pipeline.write_text(f"{block}\n[data]\nsource = 'simulator'\n")
    config = load_config(pipeline)
    assert config.recommender["two_stage_both"].rankers == ("network", "lightgbm")
    # The generators of the blend are fitted before what is made from them.
    assert config.fitted[-2:] == ("two_stage", "two_stage_lightgbm")
    assert set(config.recommender["blend"].generators) < set(config.fitted)


def test_two_stages_with_unsuitable_parts_are_refused(pipeline: Path) -> None:
    settings = ['recommenders=["popularity_7d", "two_stage"]', "recommend.recommender=two_stage"]
    with pytest.raises(
        InputError, match=r"`recommender\.two_stage\.similar` names `item_knn`, which does not score any"
    ):
        load_config(pipeline, [*settings, 'recommender.two_stage.similar=["item_knn"]'])
    assert load_config(pipeline, [*settings, 'recommender.two_stage.similar=["gru", "als"]']).fitted[-1] == "two_stage"
    with pytest.raises(InputError, match=r"`relevance_from` is \[3, 2\]; expected two orders from 2 on"):
        load_config(pipeline, [*settings, "recommender.two_stage.network.relevance_from=[3, 2]"])
    with pytest.raises(
        InputError, match=r"`recommender\.blend\.generators` names `two_stage`, which is made from a blend"
    ):
        load_config(pipeline, ['recommender.blend.generators=["popularity_7d", "two_stage"]'])
    with pytest.raises(InputError, match=r"`recommender\.two_stage\.weeks`"):
        load_config(pipeline, ["recommender.two_stage.weeks=1"])


def test_unknown_baselines_are_refused(pipeline: Path) -> None:
    assert load_config(pipeline, ['evaluation.baselines=["gru"]']).evaluation.baselines == ("gru",)
    with pytest.raises(
        InputError, match=r"`evaluation\.baselines` names the unknown recommender `gruu`; did you mean `gru`\?"
    ):
        load_config(pipeline, ['evaluation.baselines=["als", "gruu"]'])


def test_vectors_of_another_kind_than_fashion_dna_are_refused(pipeline: Path) -> None:
    settings = ['recommenders=["popularity_7d", "lstm"]', "recommend.recommender=lstm"]
    config = load_config(pipeline, [*settings, "recommender.lstm.vectors_of=fashion_dna"])
    assert config.fitted == ("popularity_7d", "fashion_dna", "lstm")
    with pytest.raises(InputError, match=r"`recommender\.lstm\.vectors_of` is `als`, .*set it to one of fashion_dna"):
        load_config(pipeline, [*settings, "recommender.lstm.vectors_of=als"])


def test_next_category_without_a_declared_category_is_refused(pipeline: Path) -> None:
    settings = ['recommenders=["popularity_7d", "next_category"]', "recommend.recommender=next_category"]
    with pytest.raises(
        InputError, match=r"`recommender\.next_category\.category` \(or else `features\.roles\.category`\) is ``"
    ):
        load_config(pipeline, settings)
    kinds = ['features.categorical=["kind"]', "recommender.next_category.category=kind"]
    assert "next_category" in load_config(pipeline, [*settings, *kinds]).fitted


def test_a_width_that_heads_do_not_divide_is_refused(pipeline: Path) -> None:
    with pytest.raises(InputError, match=r"`hidden_dim` is 10, which `num_heads`, 4, does not divide"):
        load_config(pipeline, ["recommender.attention.hidden_dim=10", "recommender.attention.num_heads=4"])


def test_event_features_that_reveal_hidden_purchases_are_refused(pipeline: Path) -> None:
    with pytest.raises(InputError, match=r'`masked_share` is for the tower "attention", and this is "gru"'):
        load_config(pipeline, ["recommender.gru.masked_share=0.2"])
    with pytest.raises(
        InputError, match=r"`event_features` holds price, discount, which would reveal a hidden purchase"
    ):
        load_config(pipeline, ["recommender.attention.masked_share=0.2"])


def test_parts_are_fitted_before_the_recommender_made_from_them(pipeline: Path) -> None:
    settings = [
        'recommenders=["popularity_7d", "blend", "als_7d", "two_tower_30d"]',
        "recommender.two_tower_30d.kind=restricted",
        "recommend.recommender=blend",
        "recommender.als_7d.kind=restricted",
        "recommender.als_7d.of=als",
        'recommender.blend.generators=["repurchase", "als_7d"]',
    ]
    fitted = load_config(pipeline, settings).fitted
    assert fitted == ("popularity_7d", "als", "als_7d", "two_tower", "two_tower_30d", "repurchase", "blend")


@pytest.mark.parametrize(
    ("by", "words"),
    [("agee_band", "did you mean `age_band`"), ("qqq", "known are .*store_id, sales_channel_id")],
)
def test_popularity_by_an_unknown_column_is_refused_on_loading(pipeline: Path, by: str, words: str) -> None:
    settings = [
        'recommenders=["popularity_7d", "mine"]',
        "recommender.mine.kind=popularity",
        "recommend.recommender=mine",
    ]
    settings += [f"recommender.mine.by={by}", 'features.profile=["age_band"]']
    with pytest.raises(InputError, match=f"`recommender.mine.by` is `{by}`, which is no profile feature.*{words}"):
        load_config(pipeline, settings)


def test_every_artifact_is_described(pipeline: Path) -> None:
    settings = ['recommenders=["popularity_7d", "two_tower", "repurchase_decayed"]', 'index.kinds=["exact", "scann"]']
    found = load_config(pipeline, settings).descriptions
    assert found["popularity_7d"] == "What sells, to everyone or to a group (days 7)."
    assert found["repurchase_decayed"] == "What the customer bought before (half life days 60.0)."
    assert found["two_tower_scann"].endswith("Searched approximately by ScaNN, which is faster for large catalogues.")
    assert set(found) == {"popularity_7d", "two_tower", "two_tower_scann", "repurchase_decayed"}


def test_the_settings_of_a_fit_include_those_of_its_parts(pipeline: Path) -> None:
    settings = [
        'recommender.blend.generators=["popularity_7d", "two_tower_30d"]',
        'recommenders=["popularity_7d", "two_stage"]',
    ]
    settings += ["recommend.recommender=two_stage", "recommender.two_tower_30d.kind=restricted"]
    config, other = (
        load_config(pipeline, settings),
        load_config(pipeline, [*settings, "recommender.two_tower.epochs=99"]),
    )
    for name in ("blend", "two_stage", "two_tower_30d", "two_tower"):
        assert config.settings_of(name) != other.settings_of(name)
    assert config.settings_of("popularity_7d") == other.settings_of("popularity_7d")


def test_the_search_of_the_tuning_page_can_be_declared(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "guide" / "tuning.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    file = tmp_path / "shop.toml"
    file.write_text('[data]\nsource = "simulator"\n' + block)
    told = load_config(file).tune
    assert list(told.space) == [
        f"recommender.two_tower.{name}" for name in ("learning_rate", "num_steps", "embedding_dim", "hidden_dims")
    ]
    assert told.space["recommender.two_tower.hidden_dims"].values == ((), (128,), (128, 64))
