"""What a good pandas user writes to prepare H&M's files: the peer of `prepare_hm_scale.py`, which runs it.

The same files in, the same checks by distinct value, the same tables, all weekly features, the same records out. Ids and
dates are categories, weeks are dense arrays, and Python loops over customers alone, to write one record each.
"""

import datetime
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

FIRST_INDEX, LONGEST = 2, 13
AGE_EDGES = (16, 20, 25, 30, 35, 40, 50, 60)
AGE_GROUPS = {"under_25": (0, 25), "25_34": (25, 35), "35_49": (35, 50), "50_up": (50, 200)}
SEASONS = ("winter", "spring", "summer", "autumn")
ARTICLE_FEATURES = [
    f"{name}_name"
    for name in (
        "product_type",
        "graphical_appearance",
        "colour_group",
        "department",
        "index",
        "index_group",
        "section",
        "garment_group",
    )
]
Counts = dict[str, int]


def _refuse(bad: pd.Series | np.ndarray, values: pd.Series, what: str) -> None:
    if count := int(np.sum(bad)):
        raise ValueError(f"{count:,} row(s) where `{values.name}` {what}, e.g. {values[bad].head().tolist()}")


def _clean_categories(column: pd.Series, counts: Counts, *, digits: int = 0, is_words: bool = False) -> pd.Series:
    """Trims texts, writes 1.0 as 1 and puts leading zeros back; each distinct text is looked at once."""
    values = column.cat.categories.to_series()
    rows = np.bincount(column.cat.codes + 1, minlength=len(values) + 1)[1:]
    clean = values.str.strip()
    rules = {"trimmed": (clean != values).to_numpy()}
    if not is_words:
        is_float = clean.str.fullmatch(r"-?[0-9]+\.0+").to_numpy()
        rules["a whole number written with .0"] = is_float
        clean = clean.where(~is_float, clean.str.replace(r"\.0+$", "", regex=True))
    if digits:
        is_short = (clean.str.fullmatch("[0-9]+") & (clean.str.len() < digits)).to_numpy()
        rules["leading zeros put back"] = is_short
        clean = clean.where(~is_short, clean.str.zfill(digits))
    counts |= {f"`{column.name}` {rule}": int(rows[hit].sum()) for rule, hit in rules.items() if rows[hit].sum()}
    if not clean.equals(values):
        return column.map(clean.replace("", None)).astype("category")
    return column


def _read(path: Path, texts: Sequence[str], numbers: Sequence[str], counts: Counts) -> pd.DataFrame:
    """Reads columns; a file that does not parse is read as text to say what is wrong, and how often."""
    columns = [*texts, *numbers]
    types = {**dict.fromkeys(texts, "category"), **dict.fromkeys(numbers, "float64")}
    try:
        frame = pd.read_csv(path, usecols=columns, dtype=types, keep_default_na=False, na_values=[""])
    except ValueError:
        for name in numbers:
            column = pd.read_csv(path, usecols=[name], dtype=str, keep_default_na=False, na_values=[""])[name]
            bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
            _refuse(bad, column, "is not a number")
        raise
    for name in numbers:
        _refuse(np.isinf(frame[name]), frame[name], "is infinite")
    for name in texts:
        digits = 10 if name == "article_id" else 0
        is_words = name in {"prod_name", "detail_desc"}
        frame[name] = _clean_categories(frame[name], counts, digits=digits, is_words=is_words)
    return frame


def _check_ids(column: pd.Series, *, is_key: bool) -> None:
    _refuse(column.isna(), column, "is missing")
    ids = column.cat.categories.to_series()
    broken = ids[ids.str.contains(r"[\x00-\x1f\x7f]")]
    _refuse(column.isin(broken), column, "holds control characters")
    if is_key:
        _refuse(column.duplicated(), column, "appears more than once")


def load(raw: Path, counts: Counts) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """CSV to canonical columns."""
    read = _read(
        raw / "transactions_train.csv", ["t_dat", "customer_id", "article_id", "sales_channel_id"], ["price"], counts
    )
    days = pd.to_datetime(read["t_dat"].cat.categories.to_series(), format="%Y-%m-%d", errors="coerce")
    _refuse(read["t_dat"].isin(days.index[days.isna()]), read["t_dat"], "is not a date")
    channels = pd.to_numeric(read["sales_channel_id"].cat.categories.to_series(), errors="coerce")
    bad = channels.index[channels.isna() | (channels % 1 != 0)]
    _refuse(read["sales_channel_id"].isin(bad), read["sales_channel_id"], "is not a whole number")
    counts["price is 0: unknown instead"] = int((read["price"] == 0).sum())
    read["price"] = read["price"].replace(0, np.nan)
    lines = read.groupby(list(read.columns), observed=True, sort=False, dropna=False).size()
    lines = lines.rename("quantity").reset_index()
    counts["made one line with another"] = len(read) - len(lines)
    lines["basket_id"] = lines["t_dat"]
    lines["t_dat"] = lines["t_dat"].cat.rename_categories(days).astype("datetime64[us]")
    lines["sales_channel_id"] = (
        lines["sales_channel_id"].cat.rename_categories(channels.astype("int64")).astype("Int64")
    )
    lines = lines.assign(discount=np.nan, store_id=None)

    texts = ["article_id", "product_code", "prod_name", "detail_desc", *ARTICLE_FEATURES]
    articles = _read(raw / "articles.csv", texts, [], counts)
    name, text = articles["prod_name"].astype(object), articles["detail_desc"].astype(object)
    articles["description"] = (name.fillna("") + " " + text.fillna("")).str.strip()
    articles["design_number"] = pd.to_numeric(articles["product_code"])
    articles = articles.drop(columns=["prod_name", "detail_desc"])
    texts = ["customer_id", "FN", "Active", "club_member_status", "fashion_news_frequency", "postal_code"]
    customers = _read(raw / "customers.csv", texts, ["age"], counts)
    customers = customers.rename(columns={"club_member_status": "status"})
    for name in ("FN", "Active"):
        customers[name] = customers[name].astype(object).fillna("-1")
    customers["age"] = customers["age"].where(customers["age"].between(10, 110))
    labels = ["<16", *(f"{low}-{high - 1}" for low, high in itertools.pairwise(AGE_EDGES)), "60+"]
    customers["age_band"] = pd.cut(customers["age"], [-np.inf, *AGE_EDGES, np.inf], right=False, labels=labels)
    return customers, articles, lines


def check(customers: pd.DataFrame, articles: pd.DataFrame, lines: pd.DataFrame) -> None:
    """Refuses what cannot be learned from, by column and count."""
    _check_ids(customers["customer_id"], is_key=True)
    _check_ids(articles["article_id"], is_key=True)
    for name in ("customer_id", "article_id", "basket_id"):
        _check_ids(lines[name], is_key=False)
    _refuse(lines["t_dat"].isna(), lines["t_dat"], "is missing")
    _refuse(lines["t_dat"] >= pd.Timestamp.now() + pd.Timedelta(days=1), lines["t_dat"], "lies in the future")
    _refuse(lines["price"] < 0, lines["price"], "is negative")
    _refuse(lines["quantity"] < 1, lines["quantity"], "is below 1")
    _refuse((lines["discount"] < 0) | (lines["discount"] > 1), lines["discount"], "lies outside [0, 1]")


def index(
    customers: pd.DataFrame, articles: pd.DataFrame, lines: pd.DataFrame, counts: Counts
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Numbers customers and articles, appends rows for ids without one, gives a basket one instant, sorts."""
    start = lines.groupby(["customer_id", "basket_id"], observed=True)["t_dat"].transform("min")
    counts["moved to the first instant of their basket"] = int((lines["t_dat"] > start).sum())
    lines["t_dat"] = start
    frames = []
    for frame, key in ((customers, "customer_id"), (articles, "article_id")):
        frame[key] = frame[key].astype(object)
        first = lines.groupby(key, observed=True)["t_dat"].min()
        new = first[~first.index.isin(frame[key])].rename("known_from").reset_index()
        counts[f"`{key}` without a row"] = len(new)
        frame["known_from"] = pd.NaT
        frame = pd.concat([frame, new]) if len(new) else frame
        frame = frame.sort_values(["known_from", key], na_position="first", ignore_index=True)
        number = f"{key.removesuffix('_id')}_index"
        frame[number] = np.arange(FIRST_INDEX, len(frame) + FIRST_INDEX, dtype=np.int32)
        of_category = pd.Series(frame[number].to_numpy(), index=frame[key]).reindex(lines[key].cat.categories)
        lines[number] = of_category.to_numpy()[lines[key].cat.codes].astype(np.int32)
        frames.append(frame)
    # Lines that agree in all else are in the order of timelines, which has quantity before price.
    order = ["customer_index", "t_dat", "basket_id", "article_index", "quantity", "price", "sales_channel_id"]
    return frames[0], frames[1], lines.sort_values(order, ignore_index=True)


def _sum_by_week(lines: pd.DataFrame, age: np.ndarray, week: np.ndarray) -> pd.DataFrame:
    """Sums by `article_index, week`; a basket counts once, a buyer at the first basket."""
    # A stable sort of rows in order of customers and time puts those of one article and customer together, in time.
    rows = lines[["article_index", "customer_index", "t_dat", "price", "sales_channel_id"]].assign(week=week)
    rows = rows.sort_values("article_index", kind="stable")
    is_basket = ~rows.duplicated(["article_index", "customer_index", "t_dat"]).to_numpy()
    position = (
        pd.Series(is_basket).groupby([rows["article_index"].to_numpy(), rows["customer_index"].to_numpy()]).cumsum()
    )
    is_buyer = is_basket & (position == 1).to_numpy()
    season = (rows["t_dat"].dt.month % 12 // 3).to_numpy()
    ages = np.where(is_buyer, age[rows["customer_index"].to_numpy()], np.nan)
    first_sale = (
        rows.groupby("sales_channel_id")["t_dat"].min().reset_index().sort_values(["t_dat", "sales_channel_id"])
    )
    channel = (
        rows["sales_channel_id"]
        .map({channel: at for at, channel in enumerate(first_sale["sales_channel_id"])})
        .to_numpy(float, na_value=-1)
    )
    summed = {
        "sales": is_basket,
        "buyers": is_buyer,
        "repeat_buyers": is_basket & (position == 2).to_numpy(),
        "age_sum": np.nan_to_num(ages),
        "num_ages": ~np.isnan(ages),
        "price_sum": rows["price"].fillna(0.0).to_numpy(),
        "num_prices": rows["price"].notna().to_numpy(),
        "num_channels": channel >= 0,
        **{f"season_{number}": is_basket & (season == number) for number in range(4)},
        **{f"channel_{number}": channel == number for number in range(3)},
        **{name: (ages >= low) & (ages < high) for name, (low, high) in AGE_GROUPS.items()},
    }
    keys = {"article_index": rows["article_index"].to_numpy(), "week": rows["week"].to_numpy()}
    sums = pd.DataFrame(keys | summed).groupby(["article_index", "week"]).sum()
    seconds = pd.DataFrame(keys | {"second": rows["t_dat"].to_numpy().astype("datetime64[s]").astype(np.int64)})
    spans = seconds.groupby(["article_index", "week"])["second"].agg(first_second="min", last_second="max")
    return sums.join(spans)


def make_weeks(
    customers: pd.DataFrame, articles: pd.DataFrame, lines: pd.DataFrame, *, as_of: datetime.datetime, num_weeks: int
) -> pd.DataFrame:
    """Makes all weekly features of `tfrs_fashion.features.article_weeks`."""
    oldest = num_weeks + LONGEST - 1
    age = np.full(len(customers) + FIRST_INDEX, np.nan)
    age[FIRST_INDEX:] = customers["age"].where(customers["age"].between(10, 100))
    lines = lines[lines["t_dat"] < as_of]
    second = lines["t_dat"].to_numpy().astype("datetime64[s]").astype(np.int64)
    end = int(np.datetime64(as_of, "s").astype(np.int64))
    week = np.minimum((end - 1 - second) // (7 * 86_400), oldest)
    grid = pd.MultiIndex.from_product([articles["article_index"], range(oldest + 1)], names=["article_index", "week"])
    sums = _sum_by_week(lines, age, week).reindex(grid)
    shape = (len(articles), oldest + 1)
    # By article and week, from the most recent week on: what is visible in a week is the sum from there on.
    own = {name: sums[name].to_numpy(float).reshape(shape) for name in sums.columns}
    seen = {name: np.nan_to_num(values)[:, ::-1].cumsum(1)[:, ::-1] for name, values in own.items()}
    first = np.fmin.accumulate(own["first_second"][:, ::-1], axis=1)[:, ::-1]
    last = np.fmax.accumulate(own["last_second"][:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([seen["sales"], np.zeros((len(articles), LONGEST))], axis=1)
    recent = {span: seen["sales"] - padded[:, span : span + shape[1]] for span in (1, 4, 13)}

    known = (
        pd.DataFrame({"customer": lines["customer_index"].to_numpy(), "week": week}).groupby("customer")["week"].max()
    )
    known = known[~np.isnan(age[known.index])]
    age_sum = np.bincount(known, weights=age[known.index], minlength=oldest + 1)[::-1].cumsum()[::-1]
    num_ages = np.bincount(known, minlength=oldest + 1)[::-1].cumsum()[::-1]

    kept = slice(0, num_weeks)
    seen = {name: values[:, kept] for name, values in seen.items()}
    recent = {span: values[:, kept] for span, values in recent.items()}
    instant = end - np.arange(num_weeks) * 7 * 86_400
    months = pd.to_datetime(instant, unit="s").month

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)

    found = {f"sales_{span}w": values for span, values in recent.items()}
    found["trend"] = np.log((recent[1] + 1) / (recent[4] / 4 + 1))
    found["days_on_sale"] = (instant - first[:, kept]) / 86_400
    found["days_since_sold"] = (instant - last[:, kept]) / 86_400
    found["mean_price"] = share(seen["price_sum"], seen["num_prices"])
    found["discount_rate"] = np.full((len(articles), num_weeks), np.nan)
    found["buyers"] = seen["buyers"]
    found["repurchase_rate"] = share(seen["repeat_buyers"], seen["buyers"])
    found |= {f"season_share_{name}": share(seen[f"season_{at}"], seen["sales"]) for at, name in enumerate(SEASONS)}
    found["age_preference"] = share(seen["age_sum"], seen["num_ages"]) - (age_sum / num_ages)[kept]
    found |= {f"age_share_{name}": share(seen[name], seen["num_ages"]) for name in AGE_GROUPS}
    found |= {f"channel_share_{at + 1}": share(seen[f"channel_{at}"], seen["num_channels"]) for at in range(3)}

    grid = grid[grid.get_level_values("week") < num_weeks]
    table = pd.DataFrame({name: values.ravel() for name, values in found.items()}, index=grid).reset_index()
    place = np.repeat(np.arange(len(articles)), num_weeks)
    product, category = (articles[name].to_numpy(object)[place] for name in ("product_code", "product_type_name"))
    keys = pd.DataFrame({"week": table["week"], "product": product, "category": category})
    keys[["product", "category"]] = keys[["product", "category"]].astype("category")
    of_product = table.groupby([keys["week"], keys["product"]], observed=True)
    of_category = [keys["week"], keys["category"]]
    for span in ("sales_4w", "sales_13w"):
        table[f"product_{span}"] = of_product[span].transform("sum") - table[span]
    table["category_sales_4w"] = table.groupby(of_category, observed=True)["sales_4w"].transform("sum")
    sums = pd.DataFrame({"price": seen["price_sum"].ravel(), "lines": seen["num_prices"].ravel()})
    sums = sums.groupby(of_category, observed=True).transform("sum")
    table["price_to_category"] = table["mean_price"] / (sums["price"] / sums["lines"])
    in_season = np.stack([seen[f"season_{month % 12 // 3}"][:, at] for at, month in enumerate(months)], axis=1).ravel()
    sold = keys.assign(sales=in_season)[in_season > 0].sort_values("sales", ascending=False, kind="stable")
    groups = sold.groupby(["week", "category"], observed=True)["sales"]
    best = sold[groups.cumcount() == (groups.transform("size") - 1) // 20].set_index(["week", "category"])["sales"]
    best_from = keys[["week", "category"]].join(best, on=["week", "category"])["sales"].to_numpy()
    table["seasonal_bestseller"] = (in_season > 0) & (in_season >= best_from)
    return table.astype({name: np.float32 for name in table.columns[2:]})


def write_timelines(
    customers: pd.DataFrame, lines: pd.DataFrame, folder: Path, *, profile: Sequence[str], numbers: Sequence[str]
) -> None:
    """Writes one `tf.train.Example` a customer, in four shards."""
    import tensorflow as tf

    splits = np.searchsorted(lines["customer_index"], np.arange(FIRST_INDEX, len(customers) + FIRST_INDEX + 1))
    events = {name: lines[name].to_numpy() for name in ("article_index", "quantity")}
    events["sales_channel_id"] = lines["sales_channel_id"].fillna(0).to_numpy(np.int64)
    events["time"] = lines["t_dat"].to_numpy().astype("datetime64[s]").astype(np.int64)
    floats = {name: lines[name].to_numpy(np.float32) for name in ("price", "discount")}
    ids, texts = (
        customers["customer_id"].tolist(),
        {name: customers[name].astype(object).fillna("").tolist() for name in profile},
    )
    values = {name: customers[name].tolist() for name in numbers}
    known = customers["known_from"].isna().to_numpy()
    known_from = np.where(
        known, np.iinfo(np.int64).min, customers["known_from"].to_numpy().astype("datetime64[s]").astype(np.int64)
    )
    for shard, rows in enumerate(np.array_split(np.arange(len(customers)), 4)):
        with tf.io.TFRecordWriter(str(folder / f"timelines-train.tfrecord-{shard:05d}-of-00004")) as writer:
            for row in rows.tolist():
                first, last = splits[row], splits[row + 1]
                example = tf.train.Example()
                feature = example.features.feature
                feature["customer_id"].bytes_list.value.append(ids[row].encode())
                feature["customer_index"].int64_list.value.append(row + FIRST_INDEX)
                feature["known_from"].int64_list.value.append(known_from[row])
                for name, column in texts.items():
                    feature[f"profile/{name}"].bytes_list.value.append(column[row].encode())
                for name, column in values.items():
                    feature[f"profile_numbers/{name}"].float_list.value.append(column[row])
                for name, column in events.items():
                    feature[f"events/{name}"].int64_list.value.extend(column[first:last].tolist())
                for name, column in floats.items():
                    feature[f"events/{name}"].float_list.value.extend(column[first:last].tolist())
                writer.write(example.SerializeToString(deterministic=True))


def write_tables(folder: Path, counts: Counts, **tables: pd.DataFrame) -> None:
    """Writes Parquet, and what was changed."""
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    (folder / "counts.json").write_text(json.dumps(counts))
