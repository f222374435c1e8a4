"""The meteorological season of an instant, computed in the graph."""

import tensorflow as tf

from tfrs_fashion.features.article_weeks import SEASONS
from tfrs_fashion.features.inputs import SECONDS_PER_DAY


def find_season(time: tf.Tensor) -> tf.Tensor:
    """Returns the meteorological season of each instant, by the Gregorian calendar in UTC.

    Args:
        time: int64 seconds since 1970, any shape; negative before 1970.

    Returns:
        int32 positions in `SEASONS`, of the same shape; see `season_of`. South of the equator the names are those of the
        opposite season, but the same months belong together.

    Source:
        `civil_from_days` in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin on 1 March, so
        that the leap day comes last and five months always have 153 days.
    """
    # The calendar repeats after 400 years, which are 146,097 days: 32 bits are enough from here on, and faster.
    day = tf.cast(tf.math.floormod(tf.math.floordiv(time, SECONDS_PER_DAY) + 719_468, 146_097), tf.int32)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day_of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    # March is month 0 of this calendar, and spring is the second of `SEASONS`.
    return (month // 3 + 1) % len(SEASONS)
