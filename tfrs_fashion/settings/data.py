"""The section `[data]` of a pipeline file: which source, and how a retailer's columns become the canonical ones."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tfrs_fashion.schema import ARTICLE_COLUMNS, CUSTOMER_COLUMNS
from tfrs_fashion.settings.base import Section

MAPPED_SOURCES = ("hm", "retail")
# What the database reads by itself, by Python's names.
_ENCODINGS: dict[str, Literal["utf-8", "latin-1", "utf-16"]] = {
    "utf-8": "utf-8",
    "iso8859-1": "latin-1",
    "utf-16": "utf-16",
}
# Patterns of dates as spreadsheets write them, beside those of the pipeline file.
_PATTERNS = (("yyyy", "%Y"), ("yy", "%y"), ("dd", "%d"), ("hh:mm", "%H:%M"), ("hh", "%H"), ("mm", "%m"), ("ss", "%S"))


def _check_date_format(text: str) -> str:
    """Refuses a pattern in another notation, by which no date could be read."""
    if not text or "%" in text:
        return text
    told = text.lower()
    for theirs, ours in _PATTERNS:
        told = told.replace(theirs, ours)
    hint = f'did you mean "{told}"?' if "%" in told else 'write e.g. "%d.%m.%Y %H:%M" for 31.12.2024 18:30'
    raise ValueError(f"holds no %; {hint}")


def _check_encoding(name: str) -> str:
    try:
        found = codecs.lookup(name).name
    except LookupError:
        found = ""
    if found in _ENCODINGS:
        return _ENCODINGS[found]
    windows = ', or set "latin-1" where they hold no euro signs and no curly quotes' if found == "cp1252" else ""
    raise ValueError(
        "expected utf-8, latin-1 or utf-16; convert other files, e.g. by "
        f"iconv -f {name} -t UTF-8 sales.csv > sales_utf8.csv{windows}"
    )


DateFormat = Annotated[str, AfterValidator(_check_date_format)]


class TransactionsConfig(Section):
    """Columns of the transactions' file; an empty name means that the file has no such column.

    Attributes:
        file: A Parquet or CSV file, a folder of part files, or a glob; relative to `data.path`.
        customer_id: Who bought.
        article_id: What was bought.
        t_dat: When. A date or a time, ISO 8601 unless `date_format` or `ordinal` says otherwise.
        date_format: How text is read as a time, e.g. `%d.%m.%Y %H:%M`.
        ordinal: Declares that `t_dat` holds whole numbers: days, or seconds, since 1970; any count that only orders.
        price: Paid per unit.
        quantity: Units; 1 where the file has none.
        discount: Off the list price, as `discount_unit` says.
        discount_unit: `share` for numbers within [0, 1], `percent` for those within [0, 100], with or without a % behind.
        sales_channel_id: A whole number.
        store_id: Where.
        basket_id: What was paid together; same customer and day where the file has none.
        anonymous_ids: Customer ids that stand for everybody who is not told apart; `""` is a missing id.
        not_merchandise: Article ids whose lines are dropped, such as postage.
        returns: What becomes of a quantity below 0. `drop` leaves the line out; `net` takes it off the latest earlier
            purchases of that article by that customer, and so looks ahead: see docs/your_tables.md.
        identical_lines: `sum` if lines that are equal in all but quantity mean units of one line.
        article_id_digits: Article ids of digits alone that are shorter lost leading zeros, which are put back; 0: never.
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
    """Reads a list of columns as a table in which each keeps its name."""
    if not isinstance(value, list | tuple):
        return value
    twice = sorted({str(name) for name in value if value.count(name) > 1})
    if twice:
        raise ValueError(f"names {', '.join(f'`{name}`' for name in twice)} twice")
    return {name: name for name in value}


class RowsConfig(Section):
    """What articles and customers have in common.

    Attributes:
        file: As for transactions; without one, rows are derived from the transactions' file, each from its first line.
        features: Categorical columns to keep: a list, or a table `name = "Column"`.
        numbers: Numeric columns to keep, written alike.
        derived: Columns joined by a hyphen, e.g. `family = ["Category", "Family"]` gives `Cycling-Helmet`.
        bands: A feature made of a number and the lower edges of its bands, e.g. `age_band = { age = [16, 20, 30] }`.
        fill: What stands for a missing value of a feature, e.g. `FN = "-1"`.
        known_from: The first instant at which a row was known; always where the file has no such column.
        date_format: How text in columns of dates is read.
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
    """Columns of the articles' file, beside those of `RowsConfig`.

    Attributes:
        article_id: As named in the transactions by default.
        description: One column, or several that are joined by a space.
        list_price: Before discounts.
        margin: Of the retailer.
        image_path: Of the article's image.
        product_code: The design, which articles of other colours share.
        available_from: First day in store.
        available_to: Last day in store.
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
    """Columns of the customers' file, beside those of `RowsConfig`.

    Attributes:
        customer_id: As named in the transactions by default.
        age: In years; below 10 and above 110 it counts as unknown.
        status: E.g. of a club's members.
    """

    customer_id: str = ""
    age: str = ""
    status: str = ""

    @model_validator(mode="after")
    def _check_names(self) -> "CustomersConfig":
        self._check({column.name for column in CUSTOMER_COLUMNS} | {"customer_index"})
        return self


class SequencesConfig(Section):
    """Sequences of ids, of which only the order is known.

    Attributes:
        file: A line a customer: the customer's id, then article ids, oldest first, with white space between them.
        attributes: JSON of lists by article id, which become the column `attributes` of articles; none where empty.
    """

    file: str = ""
    attributes: str = ""


class DataConfig(Section):
    """Where the tables come from.

    Attributes:
        source: The module of `tfrs_fashion.data` that reads them.
        path: Folder of raw files, relative to where the command is given; the source's own embedded data where empty.
        missing_values: Texts that mean a missing value, e.g. `["NA", "NULL"]` (`hm` and `retail` only, as those below to
            `customers`).
        encoding: Of CSV: `utf-8`, `latin-1` or `utf-16`.
        decimal: Sign before the fraction of a number written as text.
        thousands: Sign between its groups of three digits; empty for none.
        transactions: Columns of the transactions.
        articles: Columns of the articles.
        customers: Columns of the customers.
        sequences: Files of sequences (`sequences` only).
        num_customers: Size of generated tables (`simulator` and `hm_scale` only).
        num_articles: Size of generated tables (`simulator` and `hm_scale` only).
        num_days: Days of generated transactions (`simulator` only).
        num_transactions: Size of generated tables (`hm_scale` only).
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
