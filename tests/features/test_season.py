import datetime

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.article_weeks import SEASONS, season_of
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.season import find_season

# By month, January first.
NAMES = ["winter", "winter", *["spring"] * 3, *["summer"] * 3, *["autumn"] * 3, "winter"]
SEASON_OF_MONTH = [SEASONS.index(name) for name in NAMES]


def test_months_are_numbered_alike_everywhere() -> None:
    assert [season_of(month) for month in range(1, 13)] == SEASON_OF_MONTH


def test_every_day_from_1970_to_2100() -> None:
    first, last = datetime.date(1970, 1, 1), datetime.date(2100, 12, 31)
    days = [first + datetime.timedelta(days=day) for day in range((last - first).days + 1)]
    expected = [SEASON_OF_MONTH[day.month - 1] for day in days]
    midnight = tf.range(len(days), dtype=tf.int64) * SECONDS_PER_DAY
    for moment in (midnight, midnight + SECONDS_PER_DAY - 1):
        assert find_season(moment).numpy().tolist() == expected


def test_years_before_1970_and_long_after() -> None:
    # NumPy's calendar reaches further than datetime's; both are Gregorian.
    days = np.arange(np.datetime64("-0500-01-01"), np.datetime64("12000-01-01"), dtype="datetime64[D]")
    month = days.astype("datetime64[M]").astype(np.int64) % 12
    found = find_season(tf.constant(days.astype(np.int64) * SECONDS_PER_DAY + 1)).numpy()
    np.testing.assert_array_equal(found, np.array(SEASON_OF_MONTH)[month])


def test_any_shape_and_type() -> None:
    march = int(datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC).timestamp())
    found = find_season(tf.constant([[march - 1, march]], tf.int64))
    assert found.numpy().tolist() == [[SEASONS.index("winter"), SEASONS.index("spring")]]
    assert found.dtype == tf.int32
    assert find_season(tf.zeros([0], tf.int64)).shape == (0,)
