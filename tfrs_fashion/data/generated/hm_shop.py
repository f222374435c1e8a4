"""A shop simulated day by day: which customers buy, which articles, and at what price.

Customers return and buy several articles: some that they bought before, some that are popular, and some of their own
taste, which drifts. Articles sell best in their first weeks and in their season, and are reduced at the end.
"""

import datetime
from dataclasses import dataclass

import numpy as np

from tfrs_fashion.data.generated.hm_catalogue import (
    COLOUR_MASTERS,
    DEPARTMENTS,
    NUM_GARMENTS,
    PRICE_UNIT,
    SEASONS,
    SECTION_INDEX_CODES,
    SECTIONS,
    Catalogue,
)

FIRST_DAY, LAST_DAY = datetime.date(2018, 9, 20), datetime.date(2020, 9, 22)
NUM_DAYS = (LAST_DAY - FIRST_DAY).days + 1

_REMEMBERED = 8


@dataclass(frozen=True)
class _Persona:
    """A kind of customer: share, age (mean, deviation), weight of each index, and name or first word of avoided sections."""

    share: float
    age: tuple[float, float]
    indexes: dict[str, float]
    never: str


_PERSONAS = (
    _Persona(0.26, (22.5, 3.0), {"D": 5, "A": 2.5, "B": 1.5, "C": 0.7, "S": 0.5}, "Mens"),
    _Persona(0.28, (30.0, 5.0), {"A": 6, "D": 1.5, "B": 1.5, "C": 0.7, "S": 0.6}, "Mens"),
    _Persona(0.20, (52.0, 7.0), {"A": 7, "B": 1.5, "C": 0.8, "F": 0.5, "S": 0.4}, "Mens Training"),
    _Persona(0.12, (35.0, 4.5), {"G": 2.0, "H": 2.5, "I": 1.0, "J": 0.7, "A": 2, "B": 0.4, "S": 0.3}, "Mens"),
    _Persona(0.14, (33.0, 10.0), {"F": 8, "D": 0.6, "S": 0.9}, "Womens"),
)


@dataclass
class Customers:
    """The state of all customers during the simulation; every array is `[num_customers, …]`."""

    persona: np.ndarray
    age: np.ndarray
    joined: np.ndarray
    left: np.ndarray
    activity: np.ndarray
    online: np.ndarray
    sections: np.ndarray
    garment: np.ndarray
    colour: np.ndarray
    last_day: np.ndarray
    bought: np.ndarray
    num_bought: np.ndarray


def _section_shares() -> np.ndarray:
    """Returns the cumulative shares of each persona's sections: `[num_personas, num_sections]`."""
    shares = np.zeros((len(_PERSONAS), len(SECTIONS)))
    for row, persona in enumerate(_PERSONAS):
        for column, (section, code) in enumerate(zip(SECTIONS, SECTION_INDEX_CODES, strict=True)):
            is_avoided = persona.never in (section.split()[0], section)
            has_no_kids = section == "Kids Training" and "G" not in persona.indexes
            if not is_avoided and not has_no_kids:
                shares[row, column] = persona.indexes.get(code, 0.0) / SECTION_INDEX_CODES.count(code)
    return np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)


_SECTION_SHARES = _section_shares()


def _choose_sections(random: np.random.Generator, persona: np.ndarray) -> np.ndarray:
    chosen = np.zeros(len(persona), dtype=np.int16)
    for number, cumulative in enumerate(_SECTION_SHARES):
        rows = np.flatnonzero(persona == number)
        chosen[rows] = np.minimum(np.searchsorted(cumulative, random.random(len(rows))), len(SECTIONS) - 1)
    return chosen


def make_customers(random: np.random.Generator, num_customers: int) -> Customers:
    """Draws customers without purchases, with two favourite sections each."""
    size = num_customers
    persona = random.choice(len(_PERSONAS), size, p=[one.share for one in _PERSONAS]).astype(np.int8)
    mean, deviation = np.array([one.age for one in _PERSONAS]).T
    age = np.clip(np.round(random.normal(mean[persona], deviation[persona])), 16, 99)
    joined = np.where(random.random(size) < 0.4, -1, random.integers(0, NUM_DAYS, size)).astype(np.int16)
    joined[0] = -1
    return Customers(
        persona=persona,
        age=np.where(random.random(size) < 0.012, np.nan, age),
        joined=joined,
        left=np.minimum(joined + 20 + random.exponential(700, size), 2 * NUM_DAYS).astype(np.int16),
        activity=random.gamma(0.7, size=size) + 0.02,
        online=random.beta(1.4, 0.6, size=size).astype(np.float32),
        sections=np.stack([_choose_sections(random, persona) for _favourite in range(2)], axis=1),
        garment=random.integers(NUM_GARMENTS, size=size).astype(np.int8),
        colour=random.integers(len(COLOUR_MASTERS), size=size).astype(np.int8),
        last_day=np.full(size, -1, dtype=np.int16),
        bought=np.full((size, _REMEMBERED), -1, dtype=np.int32),
        num_bought=np.zeros(size, dtype=np.int32),
    )


def rows_by_day(random: np.random.Generator, num_transactions: int) -> np.ndarray:
    """Returns the number of rows of each day, `[NUM_DAYS]` int64, with peaks on weekends, before Christmas and in sales."""
    day = np.arange(NUM_DAYS)
    dates = np.array([FIRST_DAY + datetime.timedelta(days=int(number)) for number in day])
    weekday = np.array([date.weekday() for date in dates])
    of_year = np.array([date.timetuple().tm_yday for date in dates])

    def peak(centre: int, width: float, height: float) -> np.ndarray:
        return height * np.exp(-0.5 * ((of_year - centre) / width) ** 2)

    volume = 1.0 + np.where(weekday >= 5, 0.25, 0.0)
    volume *= 1.0 + peak(332, 3, 1.2) + peak(350, 10, 0.5) + peak(176, 8, 0.7) + peak(3, 6, 0.4)
    volume *= np.exp(random.normal(0, 0.1, NUM_DAYS))
    return random.multinomial(num_transactions, volume / volume.sum())


def _season_factor(day: int) -> np.ndarray:
    """Returns the sales factor of each season on a day: `[len(SEASONS)]`."""
    of_year = (FIRST_DAY + datetime.timedelta(days=day)).timetuple().tm_yday

    def wave(centre: int, sharpness: float) -> float:
        return float(np.exp(sharpness * (np.cos(2 * np.pi * (of_year - centre) / 365.25) - 1)))

    factors = {"all year": 0.5, "winter": wave(345, 3.0), "summer": wave(165, 3.0), "party": wave(350, 12.0)}
    return np.array([factors[season] for season in SEASONS])


class Shop:
    """Simulates sales. Articles are sorted by department, so that each department and each section is a range."""

    def __init__(self, random: np.random.Generator, catalogue: Catalogue, customers: Customers):
        self._random = random
        self._catalogue = catalogue
        self._customers = customers
        self._order = np.argsort(catalogue.department, kind="stable")
        ordered = catalogue.department[self._order]
        self._department_ends = np.searchsorted(ordered, np.arange(len(DEPARTMENTS)), side="right")
        section = np.array([section for section, _garment in DEPARTMENTS])
        self._section_ends = np.searchsorted(section[ordered], np.arange(len(SECTIONS)), side="right")
        self._department_of = np.full((len(SECTIONS), NUM_GARMENTS), -1)
        for number, (row, column) in enumerate(DEPARTMENTS):
            self._department_of[row, column] = number
        self._by_joined = np.argsort(customers.joined, kind="stable")
        self._cumulative_activity = np.cumsum(customers.activity[self._by_joined])
        self._visitors: list[np.ndarray] = []

    def _choose_customers(self, day: int, size: int) -> np.ndarray:
        """Draws the customers of a day's baskets: new ones, some recent visitors, and others by their activity."""
        joined = self._customers.joined[self._by_joined]
        first, known = (int(np.searchsorted(joined, day, side=side)) for side in ("left", "right"))
        new = self._by_joined[first:known][: size // 2]
        others = size - len(new)

        def draw(size: int) -> np.ndarray:
            drawn = self._random.random(size) * self._cumulative_activity[known - 1]
            return self._by_joined[np.minimum(np.searchsorted(self._cumulative_activity, drawn), known - 1)]

        drawn = draw(others)
        gone = self._customers.left[drawn] < day
        drawn[gone] = draw(int(gone.sum()))
        if self._visitors:
            is_recent = self._random.random(others) < 0.15
            drawn[is_recent] = self._random.choice(np.concatenate(self._visitors), int(is_recent.sum()))
        chosen = np.concatenate([new, drawn])
        self._visitors = [*self._visitors[-13:], chosen]
        return np.sort(chosen)

    def _drift(self, customers: np.ndarray, day: int) -> None:
        """Changes the taste of some customers; the probability rises with the time since their last visit."""
        state, random = self._customers, self._random
        customers = np.unique(customers)
        away = np.where(state.last_day[customers] < 0, 0, day - state.last_day[customers])
        changed = customers[random.random(len(customers)) < -np.expm1(-away / 450.0)]
        place = random.integers(2, size=len(changed))
        state.sections[changed, place] = _choose_sections(random, state.persona[changed])
        for favourites, num_choices, days in (
            (state.garment, NUM_GARMENTS, 250.0),
            (state.colour, len(COLOUR_MASTERS), 350.0),
        ):
            changed = customers[random.random(len(customers)) < -np.expm1(-away / days)]
            favourites[changed] = random.integers(num_choices, size=len(changed))
        state.last_day[customers] = day

    def _popularity(self, day: int) -> np.ndarray:
        """Returns the sales rate of each article on a day, `[num_articles]`: a quick rise, a slow decay, and its season."""
        articles = self._catalogue
        days_old = day - articles.birth
        rate = articles.popularity * _season_factor(day)[articles.season]
        rate *= -np.expm1(-(np.maximum(days_old, 0) + 1) / 7) * np.exp(-np.maximum(days_old, 0) / articles.lifetime)
        return np.where(days_old >= 0, rate + 1e-9, 0.0)

    def _choose_by_taste(self, customer: np.ndarray, popularity: np.ndarray) -> np.ndarray:
        """Draws an article per line from the favourite section and garment group, preferably in the favourite colour."""
        state, random, size = self._customers, self._random, len(customer)
        cumulative = np.concatenate([[0.0], np.cumsum(popularity[self._order])])

        def ranges(ends: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return cumulative[np.where(number > 0, ends[number - 1], 0)], cumulative[ends[number]]

        def is_chosen(mass: np.ndarray, of: np.ndarray | float, share: float) -> np.ndarray:
            # Sections and departments that are out of season are chosen less: in proportion to their sales rate.
            return random.random(size) < np.minimum(share, mass / of)

        section = state.sections[customer, (random.random(size) < 0.3).astype(np.int64)].astype(np.int64)
        low, high = ranges(self._section_ends, section)
        is_section = is_chosen(60 * (high - low), cumulative[-1], 0.88)
        low, high = np.where(is_section, low, 0.0), np.where(is_section, high, cumulative[-1])
        department = self._department_of[section, state.garment[customer]]
        first, last = ranges(self._department_ends, np.maximum(department, 0))
        is_department = (department >= 0) & is_section & is_chosen(5 * (last - first), high - low, 0.6)
        low, high = np.where(is_department, first, low), np.where(is_department, last, high)

        def draw(rows: np.ndarray) -> np.ndarray:
            drawn = low[rows] + random.random(len(rows)) * (high - low)[rows]
            # `side="right"` skips articles whose sales rate is 0, which have an empty interval.
            place = np.searchsorted(cumulative, drawn, side="right") - 1
            return self._order[np.minimum(place, len(self._order) - 1)]

        chosen = draw(np.arange(size))
        favourite = state.colour[customer]
        for _attempt in range(2):
            rows = np.flatnonzero(self._catalogue.colour[chosen] != favourite)
            redrawn = draw(rows)
            fits = self._catalogue.colour[redrawn] == favourite[rows]
            chosen[rows[fits]] = redrawn[fits]
        return chosen

    def sell(self, day: int, num_rows: int) -> dict[str, np.ndarray]:
        """Simulates the sales of one day.

        Returns:
            `customer` and `article` (rows of the two tables, customers ascending), `price` and `sales_channel_id`, each
            `[num_rows]`.
        """
        random, state, articles = self._random, self._customers, self._catalogue
        sizes = random.geometric(np.where(random.random(num_rows) < 0.62, 0.6, 0.19))
        sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), num_rows)) + 1]
        sizes[-1:] -= int(sizes.sum()) - num_rows
        baskets = self._choose_customers(day, len(sizes))
        self._drift(baskets, day)
        channel = 1 + (random.random(len(baskets)) < state.online[baskets]).astype(np.int8)
        basket = np.repeat(np.arange(len(sizes)), sizes)
        customer = baskets[basket]
        popularity = self._popularity(day)
        article = self._choose_by_taste(customer, popularity)

        # Some lines repeat an earlier purchase, or take another colour of it, if it still sells.
        before = state.bought[customer, random.integers(_REMEMBERED, size=num_rows)]
        knows, drawn = before >= 0, random.random(num_rows)
        other = articles.product[before] + (random.random(num_rows) * articles.num_colours[before]).astype(np.int64)
        before = np.where(drawn < 0.2, before, other)
        is_again = (drawn < 0.32) & knows & (popularity[before] > 0.02 * articles.popularity[before])
        article = np.where(is_again, before, article)
        # Two units of one article are two rows.
        is_second = (random.random(num_rows) < 0.07) & (np.diff(basket, prepend=-1) == 0)
        article[is_second] = article[np.flatnonzero(is_second) - 1]

        reduced = (day - articles.birth[article] > 1.2 * articles.lifetime[article]) & (
            articles.lifetime[article] < 500
        )
        off = np.where(reduced, np.where(article % 3 == 0, 0.5, 0.3), 0.0)
        off = np.where((off == 0) & (random.random(len(sizes)) < 0.12)[basket], 0.1, off)
        price = np.maximum(np.round(articles.list_price[article] * (1 - off), 2), 0.29) / PRICE_UNIT

        within = np.arange(num_rows) - np.searchsorted(customer, customer)
        state.bought[customer, (state.num_bought[customer] + within) % _REMEMBERED] = article
        np.add.at(state.num_bought, customer, 1)
        return {"customer": customer, "article": article, "price": price, "sales_channel_id": channel[basket]}
