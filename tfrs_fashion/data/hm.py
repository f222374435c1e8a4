"""H&M's tables as Kaggle publishes them: a mapping for `data.retail`, whose keys a pipeline file may override."""

from pathlib import Path

from pydantic import ValidationError

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig

# The lower edges of the age bands.
AGE_EDGES = (16, 20, 25, 30, 35, 40, 50, 60)
_ENDINGS = (".parquet", ".csv", ".csv.gz")

TRANSACTIONS = TransactionsConfig(
    file="transactions_train",
    customer_id="customer_id",
    article_id="article_id",
    t_dat="t_dat",
    price="price",
    sales_channel_id="sales_channel_id",
    identical_lines="sum",
    article_id_digits=10,
)
ARTICLES = ArticlesConfig(
    file="articles",
    description=("prod_name", "detail_desc"),
    product_code="product_code",
    features={
        name: name
        for name in (
            "product_type_name",
            "graphical_appearance_name",
            "colour_group_name",
            "department_name",
            "index_name",
            "index_group_name",
            "section_name",
            "garment_group_name",
        )
    },
    # Product codes rise with time, so as a number they hint at the season in which a design appeared.
    numbers={"design_number": "product_code"},
)
CUSTOMERS = CustomersConfig(
    file="customers",
    age="age",
    status="club_member_status",
    features={name: name for name in ("FN", "Active", "fashion_news_frequency", "postal_code")},
    bands={"age_band": {"age": AGE_EDGES}},
    fill={"FN": "-1", "Active": "-1"},
)


def _find_file(folder: Path, name: str) -> str:
    """Returns the file in the folder that has one of Kaggle's names and a known extension."""
    files = [f"{name}{ending}" for ending in _ENDINGS if (folder / f"{name}{ending}").exists()]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Set `data.path`, e.g. --set data.path=FOLDER.")
    if not files:
        raise InputError(f"{folder / name}: no such file as {', '.join(_ENDINGS)}. Expected Kaggle's three files.")
    if len(files) > 1:
        raise InputError(f"{folder}: holds {' and '.join(files)}. Keep one of them.")
    return files[0]


def complete_mapping(config: DataConfig) -> DataConfig:
    """Fills in the mapping of H&M's columns where the pipeline file does not replace it.

    Args:
        config: Settings whose `path` holds `transactions_train`, `articles` and `customers`, each as `.parquet`, `.csv`
            or `.csv.gz`.

    Returns:
        Settings for `data.retail`.

    Raises:
        InputError: A file is missing or exists twice, or the keys of the pipeline file contradict the others.
    """
    sections = {}
    for name, default in (("transactions", TRANSACTIONS), ("articles", ARTICLES), ("customers", CUSTOMERS)):
        changes = getattr(config, name).model_dump(exclude_unset=True)
        if "file" not in changes:
            changes["file"] = _find_file(Path(config.path), default.file)
        try:
            sections[name] = type(default).model_validate({**default.model_dump(), **changes})
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"data.{name}: {message}.") from error
    return config.model_copy(update=sections)
