"""Lists of customers to answer, as a user hands them over."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from tfrs_fashion.schema import InputError


def read_customers(path: Path) -> tuple[list[str], int]:
    """Reads the customers to answer: a Parquet or CSV file with a column `customer_id`, or one id a line.

    Returns:
        The ids in the file's order, each once, and how many empty or repeated ones were left out.

    Raises:
        InputError: The file cannot be read, lacks the column, or holds no id.
    """
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            frame = pd.DataFrame({"customer_id": path.read_text(encoding="utf-8-sig").splitlines()})
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame({"customer_id": []})
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot read the customers ({error}).") from error
    if "customer_id" not in frame.columns:
        raise InputError(f"{path}: no column `customer_id`; found {', '.join(map(str, frame.columns))}.")
    ids = frame["customer_id"].fillna("").astype(str).str.strip()
    kept = ids[ids != ""].drop_duplicates()
    if kept.empty:
        raise InputError(f"{path}: no customer id in {len(ids):,} row(s). Give one id a line.")
    return list(kept), len(ids) - len(kept)
