from pathlib import Path

import pandas as pd
import pyarrow as pa

from tfrs_fashion.serving.batch import RECOMMENDATION_SCHEMA, write_submission


def make_batch(lists: dict[str, list[str]]) -> pa.Table:
    rows = [
        (customer, article, rank, 1 / rank, "test")
        for customer, articles in lists.items()
        for rank, article in enumerate(articles, 1)
    ]
    columns = [[row[place] for row in rows] for place in range(5)]
    return pa.table([pa.array(column) for column in columns], schema=RECOMMENDATION_SCHEMA)


def test_a_submission_has_a_line_for_everybody_and_ids_as_they_are(tmp_path: Path) -> None:
    twelve = [f"{number:010d}" for number in range(108775015, 108775027)]
    batches = iter([make_batch({"b": twelve, "a": twelve[::-1]}), make_batch({'x,"y': twelve[:3]})])
    # `c` was asked for and got nothing; `x,"y` got too little.
    assert write_submission(batches, tmp_path, customer_id=["b", "a", 'x,"y', "c"]) == 2
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "customer_id,prediction"
    assert lines[1] == f"b,{' '.join(twelve)}"
    assert lines[4] == "c,"
    found = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert found["customer_id"].tolist() == ["b", "a", 'x,"y', "c"]
    assert found["prediction"].str.split().map(len).tolist() == [12, 12, 3, 0]
    assert found["prediction"][1].split() == twelve[::-1]
