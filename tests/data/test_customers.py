from pathlib import Path

import pandas as pd
import pytest

from tfrs_fashion.data.customers import read_customers
from tfrs_fashion.data.raw import Dialect
from tfrs_fashion.schema import InputError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "client\n1\n", "no column `customer_id`; found `client`"),
        ("a.txt", "", "no customer id in 0 row"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "customer_id\n", "the file has columns and no rows"),
        ("a.txt", "\n \n", "no customer id in 2 row"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
        ("a.csv", "customer_id,x\n,1\n", "no customer id in 1 row"),
    ],
)
def test_an_unusable_list_of_customers_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_customers(tmp_path / name)


def test_ids_keep_their_leading_zeros_in_any_format(tmp_path: Path) -> None:
    frame = pd.DataFrame({"customer_id": ["007", "8"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("007\n8\n")
    for kind in ("csv", "parquet", "txt"):
        assert read_customers(tmp_path / f"a.{kind}") == (["007", "8"], 0)


def test_empty_and_repeated_customers_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff2\r\n1\r\n\r\n2\r\n".encode())
    assert read_customers(tmp_path / "a.txt") == (["2", "1"], 2)


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "|"), ("a.tsv", "\t")])
def test_the_id_column_may_have_the_mapped_name_and_any_separator(tmp_path: Path, name: str, sign: str) -> None:
    (tmp_path / name).write_text(f"Ort{sign}Kunde\nWien{sign}007\nGraz{sign} 8 \nLinz{sign}\n")
    assert read_customers(tmp_path / name, names=("customer_id", "Kunde")) == (["007", "8"], 1)
    with pytest.raises(InputError, match=r"no column `customer_id` or `Nummer`; found `Ort`, `Kunde`\."):
        read_customers(tmp_path / name, names=("customer_id", "Nummer"))


def test_ids_stored_as_floats_are_read_as_in_the_tables(tmp_path: Path) -> None:
    pd.DataFrame({"Kunde": [17850.0, None, 3.0]}).to_parquet(tmp_path / "a.parquet")
    assert read_customers(tmp_path / "a.parquet", names=("Kunde",)) == (["17850", "3"], 1)


def test_a_list_is_read_in_the_encoding_of_the_tables(tmp_path: Path) -> None:
    for name, text in (("a.csv", "customer_id\nJürgen\n"), ("a.txt", "Jürgen\n")):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        assert read_customers(tmp_path / name, dialect=Dialect(encoding="latin-1")) == (["Jürgen"], 0)
        with pytest.raises(InputError, match=r"cannot read the customers|is not UTF-8"):
            read_customers(tmp_path / name)


def test_many_ids_keep_their_order(tmp_path: Path) -> None:
    ids = [str(number * 7919 % 100_003) for number in range(100_003)]
    (tmp_path / "a.csv").write_text("customer_id\n" + "\n".join(ids * 2) + "\n")
    assert read_customers(tmp_path / "a.csv") == (ids, len(ids))
