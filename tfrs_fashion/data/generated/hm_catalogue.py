"""A generated catalogue with H&M's columns: a hierarchy of departments, and products in colours, with seasons and prices.

Index groups and indices have the names of Kaggle's H&M files, because pipelines refer to them; all other names are
fictitious. Each department is in one section, each section in one index, and each index in one group. A department sells
one garment group, and a product type belongs to one product group.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

# Kaggle's prices are scaled by an undisclosed constant; dividing list prices by this one gives a similar range.
PRICE_UNIT = 590.0
FIRST_PRODUCT_CODE, LAST_PRODUCT_CODE = 108_775, 959_461
SEASONS = ("all year", "winter", "summer", "party")


class _Index(NamedTuple):
    code: str
    name: str
    group_no: int
    group: str
    share: float
    sections: tuple[str, ...]
    garments: tuple[str, ...]


class _ProductType(NamedTuple):
    name: str
    group: str
    garment: str
    price: float
    season: str


_ADULT = ("Jersey", "Knitwear", "Shirts, Blouses", "Trousers", "Denim", "Outerwear", "Shorts")
_CHILD = ("Jersey", "Knitwear", "Trousers", "Denim", "Outerwear", "Shorts", "Nightwear")
# Sections that do not sell all garment groups of their index.
_SPECIAL = {
    "Womens Underwear": ("Underwear", "Socks, Tights"),
    "Womens Night": ("Nightwear",),
    "Womens Beach": ("Swimwear",),
    "Womens Details": ("Accessories", "Winter accessories"),
    "Womens Carry": ("Accessories",),
    "Womens Walk": ("Shoes",),
    "Divided Extras": ("Accessories",),
    "Mens Details": ("Underwear", "Accessories", "Shoes"),
    "Kids Outdoor": ("Outerwear",),
    "Kids Details": ("Accessories", "Winter accessories"),
    "Kids Beach": ("Swimwear",),
    "Kids Walk": ("Shoes",),
}
_EXTRAS = ("Accessories", "Winter accessories", "Shoes")
_INDEXES = (
    _Index("A", "Ladieswear", 1, "Ladieswear", 0.25,
           ("Womens Daily", "Womens Weekend", "Womens Fashion", "Womens Office", "Womens Premier", "Expecting"),
           (*_ADULT, "Dresses", "Party")),
    _Index("B", "Lingeries/Tights", 1, "Ladieswear", 0.06, ("Womens Underwear", "Womens Night", "Womens Beach"),
           ("Underwear", "Socks, Tights", "Nightwear", "Swimwear")),
    _Index("C", "Ladies Accessories", 1, "Ladieswear", 0.07, ("Womens Details", "Womens Carry", "Womens Walk"), _EXTRAS),
    _Index("D", "Divided", 2, "Divided", 0.15, ("Divided Core", "Divided Now", "Divided Street", "Divided Extras"),
           (*_ADULT, "Dresses", "Party", "Accessories")),
    _Index("F", "Menswear", 3, "Menswear", 0.12, ("Mens Daily", "Mens Office", "Mens Street", "Mens Details"), _ADULT),
    _Index("G", "Baby Sizes 50-98", 4, "Baby/Children", 0.08, ("Baby Girls", "Baby Boys", "Baby First"),
           ("Baby sets", "Jersey", "Knitwear", "Trousers", "Nightwear", "Outerwear")),
    _Index("H", "Children Sizes 92-140", 4, "Baby/Children", 0.11, ("Kids Girls", "Kids Boys", "Kids Outdoor"),
           (*_CHILD, "Dresses")),
    _Index("I", "Children Sizes 134-170", 4, "Baby/Children", 0.09, ("Teen Girls", "Teen Boys"), (*_CHILD, "Dresses")),
    _Index("J", "Children Accessories, Swimwear", 4, "Baby/Children", 0.04, ("Kids Details", "Kids Beach", "Kids Walk"),
           (*_EXTRAS, "Swimwear")),
    _Index("S", "Sport", 26, "Sport", 0.03, ("Womens Training", "Mens Training", "Kids Training"), ("Training", "Shoes")),
)  # fmt: skip
# Product types by product group and garment group: name, list price and season.
_RANGES = (
    ("Upper body", "Jersey", (("T-shirt", 9.99, "all year"), ("Long-sleeved top", 14.99, "all year"),
                              ("Vest", 7.99, "summer"), ("Hooded top", 24.99, "all year"))),
    ("Upper body", "Knitwear", (("Jumper", 29.99, "winter"), ("Fine cardigan", 24.99, "all year"),
                                ("Roll-neck", 34.99, "winter"))),
    ("Upper body", "Shirts, Blouses", (("Linen shirt", 29.99, "summer"), ("Poplin shirt", 24.99, "all year"))),
    ("Lower body", "Trousers", (("Chinos", 29.99, "all year"), ("Leggings", 12.99, "all year"),
                                ("Joggers", 19.99, "all year"))),
    ("Lower body", "Denim", (("Slim jeans", 39.99, "all year"), ("Wide jeans", 44.99, "all year"))),
    ("Lower body", "Shorts", (("Shorts", 17.99, "summer"),)),
    ("Lower body", "Dresses", (("Skirt", 22.99, "all year"),)),
    ("Full body", "Dresses", (("Sundress", 24.99, "summer"), ("Wrap dress", 34.99, "all year"))),
    ("Full body", "Party", (("Sequined dress", 59.99, "party"),)),
    ("Upper body", "Party", (("Velvet blazer", 69.99, "party"),)),
    ("Upper body", "Outerwear", (("Padded jacket", 69.99, "winter"), ("Wool coat", 99.99, "winter"),
                                 ("Rain jacket", 49.99, "all year"))),
    ("Full body", "Baby sets", (("Romper set", 19.99, "all year"),)),
    ("Upper body", "Baby sets", (("Bodysuit", 12.99, "all year"),)),
    ("Underwear", "Underwear", (("Briefs", 12.99, "all year"), ("Soft bra", 17.99, "all year"))),
    ("Nightwear", "Nightwear", (("Pyjamas", 24.99, "all year"), ("Fleece dressing gown", 34.99, "winter"))),
    ("Swimwear", "Swimwear", (("Swimsuit", 24.99, "summer"), ("Swim shorts", 17.99, "summer"))),
    ("Socks and tights", "Socks, Tights", (("Socks", 6.99, "all year"), ("Tights", 9.99, "winter"))),
    ("Shoes", "Shoes", (("Trainers", 34.99, "all year"), ("Sandals", 24.99, "summer"),
                        ("Lined boots", 49.99, "winter"))),
    ("Accessories", "Accessories", (("Tote", 19.99, "all year"), ("Earrings", 7.99, "all year"),
                                    ("Sun hat", 12.99, "summer"), ("Belt", 9.99, "all year"))),
    ("Accessories", "Winter accessories", (("Beanie", 9.99, "winter"), ("Gloves", 12.99, "winter"),
                                           ("Scarf", 14.99, "winter"))),
    ("Upper body", "Training", (("Sports top", 19.99, "all year"),)),
    ("Lower body", "Training", (("Running tights", 29.99, "all year"),)),
)  # fmt: skip
_PRODUCT_TYPES = tuple(
    _ProductType(name, group, garment, price, season)
    for group, garment, types in _RANGES
    for name, price, season in types
)
# Colours: name, colour master, value (dark, light, …) and share.
_COLOURS = (
    ("Black", "Black", "Dark", 0.22), ("Charcoal", "Grey", "Dark", 0.04), ("Mid Grey", "Grey", "Medium Dusty", 0.06),
    ("White", "White", "Light", 0.09), ("Chalk", "White", "Dusty Light", 0.06), ("Navy", "Blue", "Dark", 0.1),
    ("Sky Blue", "Blue", "Light", 0.06), ("Cobalt", "Blue", "Bright", 0.03), ("Blush", "Pink", "Dusty Light", 0.06),
    ("Fuchsia", "Pink", "Bright", 0.03), ("Scarlet", "Red", "Bright", 0.04), ("Wine", "Red", "Dark", 0.03),
    ("Sand", "Beige", "Dusty Light", 0.05), ("Camel", "Brown", "Medium Dusty", 0.03), ("Olive", "Green", "Dark", 0.04),
    ("Mint", "Green", "Light", 0.02), ("Mustard", "Yellow", "Medium", 0.02), ("Gold", "Metal", "Bright", 0.01),
    ("Unknown", "Unknown", "Unknown", 0.01),
)  # fmt: skip
# Graphical appearances and their shares.
_APPEARANCES = {
    "Unknown": 0.01, "Plain": 0.5, "Printed all over": 0.16, "Striped": 0.08, "Marl": 0.08, "Checked": 0.05, "Motif": 0.05,
    "Lace": 0.02, "Textured": 0.03, "Dotted": 0.02,
}  # fmt: skip
_NAMES = ("Alva", "Bo", "Cleo", "Dina", "Élodie", "Fjord", "Gigi", "Hugo", "Iris", "Juno", "Koa", "Lou", "Maja", "Nico",
          "Odile", "Pax", "Quinn", "Romy", "Søren", "Tilda", "Uma", "Vera", "Wilma", "Yuki", "Zoë")  # fmt: skip
_MATERIALS = ("a cotton blend", "organic cotton", "soft, brushed fabric", "airy fabric", "a wool mix", "stretch fabric")
_DETAILS = (
    "a relaxed fit",
    "a straight, slightly longer cut",
    "a seam at the back",
    "ribbed edges",
    'a "lived-in" look',
)

ARTICLE_COLUMNS = (
    "article_id", "product_code", "prod_name", "product_type_no", "product_type_name", "product_group_name",
    "graphical_appearance_no", "graphical_appearance_name", "colour_group_code", "colour_group_name",
    "perceived_colour_value_id", "perceived_colour_value_name", "perceived_colour_master_id",
    "perceived_colour_master_name", "department_no", "department_name", "index_code", "index_name", "index_group_no",
    "index_group_name", "section_no", "section_name", "garment_group_no", "garment_group_name", "detail_desc",
)  # fmt: skip

_GARMENTS = tuple(dict.fromkeys(kind.garment for kind in _PRODUCT_TYPES))
SECTIONS = tuple(section for index in _INDEXES for section in index.sections)
SECTION_INDEX_CODES = tuple(index.code for index in _INDEXES for _section in index.sections)
# (section, garment group) of each department, in the order of sections, so that the departments of one are adjacent.
DEPARTMENTS = tuple(
    (SECTIONS.index(section), _GARMENTS.index(garment))
    for index in _INDEXES
    for section in index.sections
    for garment in _SPECIAL.get(section, index.garments)
)
NUM_GARMENTS = len(_GARMENTS)
COLOUR_MASTERS = tuple(dict.fromkeys(master for _name, master, _value, _share in _COLOURS))


@dataclass(frozen=True)
class Catalogue:
    """The articles, sorted by id, so that the colours of a product are adjacent. All arrays are `[num_articles]`.

    Attributes:
        table: `ARTICLE_COLUMNS` with Kaggle's types.
        product: int64, row of the first article of the same product.
        num_colours: int64, number of articles of the same product.
        department: int64, index into `DEPARTMENTS`.
        colour: int64, index into `COLOUR_MASTERS`.
        season: int64, index into `SEASONS`.
        birth: float64, the day on which it comes into store, counted from the first day of sales.
        lifetime: float64, days after which its sales have fallen to 1/e.
        popularity: float64, maximum sales rate, up to a constant factor.
        list_price: float64, in the local currency.
    """

    table: pa.Table
    product: np.ndarray
    num_colours: np.ndarray
    department: np.ndarray
    colour: np.ndarray
    season: np.ndarray
    birth: np.ndarray
    lifetime: np.ndarray
    popularity: np.ndarray
    list_price: np.ndarray


def _draw_births(
    random: np.random.Generator, season: np.ndarray, *, first_day_of_year: int, num_days: int
) -> np.ndarray:
    """Draws the days on which products come into store; seasonal ones come some weeks before their season."""
    size = len(season)
    birth = np.where(random.random(size) < 0.3, -random.exponential(60, size), random.uniform(0, num_days, size))
    for number, day_of_year in ((1, 255), (2, 75), (3, 300)):
        arrivals = day_of_year - first_day_of_year + 365.0 * np.arange(-1, num_days // 365 + 2)
        arrivals = arrivals[(arrivals > -60) & (arrivals < num_days)]
        rows = np.flatnonzero((season == number) & (random.random(size) < 0.9))
        if len(arrivals):
            birth[rows] = random.choice(arrivals, len(rows)) + random.normal(0, 20, len(rows))
    return np.minimum(birth, num_days - 1.0)


def make_catalogue(
    random: np.random.Generator, *, num_articles: int, first_day_of_year: int, num_days: int
) -> Catalogue:
    """Generates a catalogue.

    Args:
        random: Random generator.
        num_articles: Number of articles, each a product in one colour.
        first_day_of_year: Day of the year of the first day of sales, 0 for 1 January.
        num_days: Number of days of sales.
    """
    colours_of = np.minimum(random.geometric(0.55, num_articles) + (random.random(num_articles) < 0.1) * 4, 40)
    num_products = int(np.searchsorted(np.cumsum(colours_of), num_articles)) + 1
    colours_of = colours_of[:num_products]
    colours_of[-1] -= int(colours_of.sum()) - num_articles

    # Products: department, type, season and first day in store. Product codes rise with that day.
    shares = {section: index.share / len(index.sections) for index in _INDEXES for section in index.sections}
    sold_in = [SECTIONS[section] for section, _garment in DEPARTMENTS]
    share = np.array([shares[section] / sold_in.count(section) for section in sold_in])
    department = random.choice(len(DEPARTMENTS), num_products, p=share / share.sum())
    garment = np.array(DEPARTMENTS)[department, 1]
    kinds = [[n for n, kind in enumerate(_PRODUCT_TYPES) if kind.garment == name] for name in _GARMENTS]
    kind = np.zeros(num_products, dtype=np.int64)
    for number, choices in enumerate(kinds):
        rows = np.flatnonzero(garment == number)
        kind[rows] = random.choice(choices, len(rows))
    season = np.array([SEASONS.index(one.season) for one in _PRODUCT_TYPES])[kind]
    birth = _draw_births(random, season, first_day_of_year=first_day_of_year, num_days=num_days)
    is_basic = (season == 0) & (random.random(num_products) < 0.2)
    birth = np.where(is_basic, np.minimum(birth, random.uniform(-600, num_days, num_products)), birth)
    order = np.argsort(birth + random.normal(0, 20, num_products), kind="stable")
    department, garment, kind, season, birth, is_basic = (
        values[order] for values in (department, garment, kind, season, birth, is_basic)
    )
    birth[0] = -30.0
    gaps = random.random(num_products) + 0.05
    span = LAST_PRODUCT_CODE - FIRST_PRODUCT_CODE - num_products
    code = FIRST_PRODUCT_CODE + np.arange(num_products) + (np.cumsum(gaps) / gaps.sum() * span).astype(np.int64)
    style = np.exp(random.normal(0, 0.9, num_products))
    tag = np.array([one.price for one in _PRODUCT_TYPES])[kind] * np.exp(random.normal(0, 0.35, num_products))
    tag = np.maximum(np.floor(tag), 1.0) + 0.99

    # Articles.
    of = np.repeat(np.arange(num_products), colours_of)
    first = np.repeat(np.cumsum(colours_of) - colours_of, colours_of)
    number = 1 + np.arange(num_articles) - first
    colour = random.choice(len(_COLOURS), num_articles, p=[row[3] for row in _COLOURS])
    appearance = random.choice(len(_APPEARANCES), num_articles, p=list(_APPEARANCES.values()))
    later = (number > 1) * random.exponential(30, num_articles)
    table = _make_table(random, code=code[of], number=number, kind=kind[of], department=department[of],
                        colour=colour, appearance=appearance)  # fmt: skip
    return Catalogue(
        table=table,
        product=first,
        num_colours=colours_of[of],
        department=department[of],
        colour=np.array([COLOUR_MASTERS.index(row[1]) for row in _COLOURS])[colour],
        season=season[of],
        birth=np.minimum(birth[of] + later, num_days - 1.0),
        lifetime=np.where(is_basic[of], 900.0, 55.0 * np.exp(random.normal(0, 0.4, num_articles))),
        popularity=style[of] * np.exp(random.normal(0, 0.9, num_articles)),
        list_price=tag[of],
    )


def _pick(values: list[str], chosen: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(chosen.astype(np.int32)), pa.array(values)).cast(pa.string())


def _numbered(values: tuple[str, ...], first: int) -> np.ndarray:
    """Numbers names as Kaggle does, with -1 for `Unknown`."""
    return np.array([-1 if value == "Unknown" else first + n for n, value in enumerate(values)])


def _make_table(
    random: np.random.Generator,
    *,
    code: np.ndarray,
    number: np.ndarray,
    kind: np.ndarray,
    department: np.ndarray,
    colour: np.ndarray,
    appearance: np.ndarray,
) -> pa.Table:
    size = len(code)
    where = np.array(DEPARTMENTS)[department]
    section, garment = where[:, 0], where[:, 1]
    codes = [index.code for index in _INDEXES]
    index = np.array([codes.index(one) for one in SECTION_INDEX_CODES])[section]
    values = tuple(dict.fromkeys(row[2] for row in _COLOURS))
    value = np.array([values.index(row[2]) for row in _COLOURS])[colour]
    master = np.array([COLOUR_MASTERS.index(row[1]) for row in _COLOURS])[colour]
    # Texts depend on the product code, so all colours of a product share them.
    word = (code * 2_654_435_761) >> 7
    descriptions = [
        f"{one.name} in {material} with {detail}."
        for one in _PRODUCT_TYPES
        for material in _MATERIALS
        for detail in _DETAILS
    ]
    chosen = kind * len(_MATERIALS) * len(_DETAILS) + word % (len(_MATERIALS) * len(_DETAILS))
    described = pa.DictionaryArray.from_arrays(
        pa.array(chosen.astype(np.int32), mask=random.random(size) < 0.01), pa.array(descriptions)
    ).cast(pa.string())
    names = [f"{name} {one.name.lower()}" for one in _PRODUCT_TYPES for name in _NAMES]
    columns = [
        pa.array([f"{one:07d}{two:03d}" for one, two in zip(code.tolist(), number.tolist(), strict=True)]),
        pa.array(code),
        _pick(names, kind * len(_NAMES) + word % len(_NAMES)),
        pa.array(kind + 60),
        _pick([one.name for one in _PRODUCT_TYPES], kind),
        _pick([one.group for one in _PRODUCT_TYPES], kind),
        pa.array(_numbered(tuple(_APPEARANCES), 1_010_000)[appearance]),
        _pick(list(_APPEARANCES), appearance),
        pa.array(_numbered(tuple(row[0] for row in _COLOURS), 5)[colour]),
        _pick([row[0] for row in _COLOURS], colour),
        pa.array(_numbered(values, 1)[value]),
        _pick(list(values), value),
        pa.array(_numbered(COLOUR_MASTERS, 2)[master]),
        _pick(list(COLOUR_MASTERS), master),
        pa.array(department * 7 + 1_201),
        _pick([f"{SECTIONS[one]} {_GARMENTS[two].lower()}" for one, two in DEPARTMENTS], department),
        _pick(codes, index),
        _pick([one.name for one in _INDEXES], index),
        pa.array(np.array([one.group_no for one in _INDEXES])[index]),
        _pick([one.group for one in _INDEXES], index),
        pa.array(section + 2),
        _pick(list(SECTIONS), section),
        pa.array(garment + 1_001),
        _pick(list(_GARMENTS), garment),
        described,
    ]
    return pa.table(columns, names=list(ARTICLE_COLUMNS))
