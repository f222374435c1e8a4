"""H&M's tables as Kaggle gives them: a fixed mapping, read by `data.retail`, whose keys a pipeline file may override."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, TransactionsConfig

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
    # Designs are numbered in the order of their making: a hint of the season that the catalogue gives away.
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

Part = TypeVar("Part", TransactionsConfig, ArticlesConfig, CustomersConfig)


def _file(folder: Path, name: str) -> str:
    """Finds the file that carries one of Kaggle's names."""
    found = [f"{name}{ending}" for ending in _ENDINGS if (folder / f"{name}{ending}").exists()]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Set `data.path`, e.g. --set data.path=FOLDER.")
    if not found:
        raise InputError(f"{folder / name}: no such file as {', '.join(_ENDINGS)}. Expected Kaggle's three files.")
    if len(found) > 1:
        raise InputError(f"{folder}: holds {' and '.join(found)}. Keep one of them.")
    return found[0]


def _merged(default: Part, given: Part, folder: Path, *, name: str) -> Part:
    changes = given.model_dump(exclude_unset=True)
    if "file" not in changes:
        changes["file"] = _file(folder, default.file)
    try:
        return type(default).model_validate({**default.model_dump(), **changes})
    except ValidationError as error:
        raise InputError(f"data.{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error


def make_mapping(
    path: str | Path, *, transactions: TransactionsConfig, articles: ArticlesConfig, customers: CustomersConfig
) -> tuple[TransactionsConfig, ArticlesConfig, CustomersConfig]:
    """Completes what a pipeline file says by what is known of H&M's files.

    Args:
        path: Folder of `transactions_train`, `articles` and `customers`, each as `.parquet`, `.csv` or `.csv.gz`.
        transactions: Keys that replace those of `TRANSACTIONS`.
        articles: Keys that replace those of `ARTICLES`.
        customers: Keys that replace those of `CUSTOMERS`.

    Returns:
        A mapping for `data.retail`.

    Raises:
        InputError: A file is missing or there twice, or what is replaced no longer goes together.
    """
    folder = Path(path)
    return (
        _merged(TRANSACTIONS, transactions, folder, name="transactions"),
        _merged(ARTICLES, articles, folder, name="articles"),
        _merged(CUSTOMERS, customers, folder, name="customers"),
    )
