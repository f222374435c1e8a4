"""The section `[data]` of a pipeline file: which source, and how a retailer's columns become the canonical ones."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tfrs_fashion.schema import ARTICLE_COLUMNS, CUSTOMER_COLUMNS
from tfrs_fashion.settings.base import Section

MAPPED_SOURCES = ("hm", "retail")
# The encodings that the database reads, by Python's names.
_ENCODINGS: dict[str, Literal["utf-8", "latin-1", "utf-16"]] = {
    "utf-8": "utf-8",
    "iso8859-1": "latin-1",
    "utf-16": "utf-16",
}
# Parts of date patterns as spreadsheets write them, and as the pipeline file does.
_PATTERNS = (("yyyy", "%Y"), ("yy", "%y"), ("dd", "%d"), ("hh:mm", "%H:%M"), ("hh", "%H"), ("mm", "%m"), ("ss", "%S"))


def _check_date_format(text: str) -> str:
    """Refuses a pattern in the notation of spreadsheets, and suggests it in that of `strptime`."""
    if not text or "%" in text:
        return text
    pattern = text.lower()
    for theirs, ours in _PATTERNS:
        pattern = pattern.replace(theirs, ours)
    hint = f'did you mean "{pattern}"?' if "%" in pattern else 'write e.g. "%d.%m.%Y %H:%M" for 31.12.2024 18:30'
    raise ValueError(f"holds no %; {hint}")


def _check_encoding(name: str) -> str:
    try:
        encoding = codecs.lookup(name).name
    except LookupError:
        encoding = ""
    if encoding in _ENCODINGS:
        return _ENCODINGS[encoding]
    windows = ', or set "latin-1" if they hold no euro signs and no curly quotes' if encoding == "cp1252" else ""
    raise ValueError(
        "expected utf-8, latin-1 or utf-16; convert other files, e.g. by "
        f"iconv -f {name} -t UTF-8 sales.csv > sales_utf8.csv{windows}"
    )


DateFormat = Annotated[str, AfterValidator(_check_date_format)]


class TransactionsConfig(Section):
    """Columns of the file of transactions; an empty name means that the file has no such column.

    Attributes:
        file: A Parquet or CSV file, a folder of part files, or a glob; relative to `data.path`.
        customer_id: The customer.
        article_id: The article.
        t_dat: The date or time, in ISO 8601 unless `date_format` or `ordinal` says otherwise.
        date_format: The pattern of dates written as text, e.g. `%d.%m.%Y %H:%M`.
        ordinal: Declares that `t_dat` holds whole numbers: days, or seconds, since 1970; any count that only orders.
        price: The price paid per unit.
        quantity: The number of units; 1 if the file has no such column.
        discount: The discount off the list price, in `discount_unit`.
        discount_unit: `share` for numbers within [0, 1], `percent` for those within [0, 100], with or without a
            trailing %.
        sales_channel_id: The channel, a whole number.
        store_id: The store.
        basket_id: The basket, i.e. what was paid together; all of a customer's day if the file has no such column.
        anonymous_ids: Customer ids that stand for all unidentified customers; `""` is a missing id.
        not_merchandise: Article ids whose lines are dropped, such as postage.
        returns: How a quantity below 0 is treated. `drop` leaves the line out; `net` subtracts it from the latest
            earlier purchases of that article by that customer, and so uses the future: see docs/reference/table_rules.md.
        identical_lines: `sum` if lines that are equal except for the quantity are units of one line.
        article_id_digits: Number of digits of article ids; shorter ids of digits only get their leading zeros back. 0
            leaves ids as they are.
    """

    file: str = ""
    customer_id: str = ""
    article_id: str = ""
    t_dat: str = ""
    date_format: DateFormat = ""
    ordinal: Literal["", "days", "seconds"] = ""
    price: str = ""
    quantity: str = ""
    discount: str = ""
    discount_unit: Literal["share", "percent"] = "share"
    sales_channel_id: str = ""
    store_id: str = ""
    basket_id: str = ""
    anonymous_ids: tuple[str, ...] = ()
    not_merchandise: tuple[str, ...] = ()
    returns: Literal["drop", "net"] = "drop"
    identical_lines: Literal["keep", "sum"] = "keep"
    article_id_digits: int = Field(default=0, ge=0)


def _named(value: Any) -> Any:
    """Turns a list of columns into a table in which each keeps its name."""
    if not isinstance(value, list | tuple):
        return value
    repeated = sorted({str(name) for name in value if value.count(name) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(f'`{name}`' for name in repeated)} twice")
    return {name: name for name in value}


class RowsConfig(Section):
    """What articles and customers have in common.

    Attributes:
        file: The file, as for transactions; if empty, rows are derived from the file of transactions, each from its
            first line.
        features: Categorical columns to keep: a list, or a table `name = "Column"`.
        numbers: Numeric columns to keep, in the same form.
        derived: Columns joined by a hyphen, e.g. `family = ["Category", "Family"]` gives `Cycling-Helmet`.
        bands: Features that are bands of a number, with the lower edges of the bands, e.g. `age_band = { age = [16, 20,
            30] }`.
        fill: The value that replaces a missing value of a feature, e.g. `FN = "-1"`.
        known_from: The column of the first instant at which a row was known; if empty, rows are known from the
            beginning.
        date_format: The pattern of dates written as text.
    """

    file: str = ""
    features: dict[str, str] = {}
    numbers: dict[str, str] = {}
    derived: dict[str, tuple[str, ...]] = {}
    bands: dict[str, dict[str, tuple[float, ...]]] = {}
    fill: dict[str, str] = {}
    known_from: str = ""
    date_format: DateFormat = ""

    _read_lists = field_validator("features", "numbers", mode="before")(_named)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The categorical features: `features`, `derived` and `bands`."""
        return (*self.features, *self.derived, *self.bands)

    def _check(self, taken: set[str]) -> None:
        seen: set[str] = set()
        for name in (*self.feature_names, *self.numbers):
            if name.lower() in taken:
                raise ValueError(
                    f"a feature is named `{name}`, which is a column of its own here; give it another name"
                )
            if name.lower() in seen:
                raise ValueError(f"two features are named `{name}`")
            seen.add(name.lower())
        if unknown := [name for name in self.fill if name not in self.feature_names]:
            raise ValueError(f"`fill` names `{unknown[0]}`, which is no feature here")
        for name, parts in self.derived.items():
            if not parts:
                raise ValueError(f"`derived.{name}` names no column")
        for name, band in self.bands.items():
            edges = next(iter(band.values()), ())
            if len(band) != 1 or not edges or list(edges) != sorted(set(edges)):
                raise ValueError(f"`bands.{name}` needs one column with its edges, ascending")


class ArticlesConfig(RowsConfig):
    """Columns of the file of articles.

    Attributes:
        article_id: The article; the column of the transactions by default.
        description: One column, or several that are joined by a space.
        list_price: The price before discounts.
        margin: The retailer's margin.
        image_path: The path of the article's image.
        product_code: The design, which articles of other colours share.
        available_from: The first day in store.
        available_to: The last day in store.
    """

    article_id: str = ""
    description: tuple[str, ...] = ()
    list_price: str = ""
    margin: str = ""
    image_path: str = ""
    product_code: str = ""
    available_from: str = ""
    available_to: str = ""

    @field_validator("description", mode="before")
    @classmethod
    def _read_one(cls, value: Any) -> Any:
        return ((value,) if value else ()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_names(self) -> "ArticlesConfig":
        self._check({column.name for column in ARTICLE_COLUMNS} | {"article_index"})
        return self


class CustomersConfig(RowsConfig):
    """Columns of the file of customers.

    Attributes:
        customer_id: The customer; the column of the transactions by default.
        age: The age in years; below 10 and above 110 it counts as unknown.
        status: A status, e.g. of club members.
    """

    customer_id: str = ""
    age: str = ""
    status: str = ""

    @model_validator(mode="after")
    def _check_names(self) -> "CustomersConfig":
        self._check({column.name for column in CUSTOMER_COLUMNS} | {"customer_index"})
        return self


class SequencesConfig(Section):
    """Sequences of article ids, of which only the order is known.

    Attributes:
        file: The file with a line per customer: the customer's id, then article ids, oldest first, separated by white
            space.
        attributes: A JSON file of lists by article id, which become the column `attributes` of articles; empty for
            none.
    """

    file: str = ""
    attributes: str = ""


class DataConfig(Section):
    """Where the tables come from.

    Attributes:
        source: `retail` for your own tables, `hm` for H&M's files, `sequences` for sequences of ids, `complete_journey`
            for the embedded data, `simulator` and `hm_scale` for generated tables.
        path: The folder of raw files, relative to the working directory; empty for data that come with the source.
        missing_values: Texts that mean a missing value, e.g. `["NA", "NULL"]` (`hm` and `retail` only, as those below
            to `customers`).
        encoding: The encoding of CSV files: `utf-8`, `latin-1` or `utf-16`.
        decimal: The decimal separator of numbers written as text.
        thousands: Their thousands separator; empty for none.
        transactions: Columns of the transactions.
        articles: Columns of the articles.
        customers: Columns of the customers.
        sequences: Files of sequences (`sequences` only).
        num_customers: Number of generated customers (`simulator` and `hm_scale` only).
        num_articles: Number of generated articles (`simulator` and `hm_scale` only).
        num_days: Number of days of generated transactions (`simulator` only).
        num_transactions: Number of generated transactions (`hm_scale` only).
    """

    source: Literal["complete_journey", "hm", "hm_scale", "retail", "sequences", "simulator"]
    path: str = ""
    missing_values: tuple[str, ...] = ()
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    transactions: TransactionsConfig = TransactionsConfig()
    articles: ArticlesConfig = ArticlesConfig()
    customers: CustomersConfig = CustomersConfig()
    sequences: SequencesConfig = SequencesConfig()
    num_customers: int = Field(default=300, ge=1)
    num_articles: int = Field(default=200, ge=1)
    num_days: int = Field(default=120, ge=1)
    num_transactions: int = Field(default=10_000, ge=1)

    @model_validator(mode="after")
    def _check_source(self) -> "DataConfig":
        if (self.source == "sequences") != bool(self.sequences.file):
            raise ValueError("`data.sequences.file` is for the source sequences, which needs it")
        if self.source not in MAPPED_SOURCES:
            mapped = {"missing_values", "encoding", "decimal", "thousands", "transactions", "articles", "customers"}
            mapped &= self.model_fields_set
            if mapped:
                raise ValueError(f"`data.{min(mapped)}` is for the sources {' and '.join(MAPPED_SOURCES)}")
            return self
        if self.decimal == self.thousands:
            raise ValueError(f"`data.decimal` and `data.thousands` are both `{self.decimal}`")
        if not self.path:
            raise ValueError(f"`data.path` is empty: the source `{self.source}` needs a folder of raw files")
        if self.source == "retail":
            needed = ("file", "customer_id", "article_id", "t_dat")
            self._check_derived()
            lacking = [f"`data.transactions.{name}`" for name in needed if not getattr(self.transactions, name)]
            if lacking:
                raise ValueError(f"missing key(s) {', '.join(lacking)}")
        if self.transactions.ordinal and self.transactions.date_format:
            raise ValueError("`data.transactions` has both `ordinal` and `date_format`")
        return self

    def _check_derived(self) -> None:
        """Derived rows have the id of the transactions, and are known from the first of them on."""
        for name, rows in (("articles", self.articles), ("customers", self.customers)):
            key = f"{name.removesuffix('s')}_id"
            own, mapped = getattr(rows, key), getattr(self.transactions, key)
            if rows.file:
                continue
            if own not in {"", mapped}:
                raise ValueError(
                    f"`data.{name}.{key}` is `{own}`, but without a file {name} are derived from the transactions, "
                    f"where it is `{mapped}`"
                )
            if rows.known_from:
                raise ValueError(
                    f"`data.{name}.known_from` needs a file: derived {name} are known from their first line"
                )
