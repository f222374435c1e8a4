from collections.abc import Callable
from typing import NoReturn

import pytest


def test_what_is_missing_skips_with_a_reason(
    skip_or_fail: Callable[[str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TFRS_FASHION_NO_SKIP", raising=False)
    with pytest.raises(pytest.skip.Exception, match="the tool xyz is not installed"):
        skip_or_fail("the tool xyz is not installed")


def test_where_nothing_may_be_missing_it_fails(
    skip_or_fail: Callable[[str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFRS_FASHION_NO_SKIP", "1")
    with pytest.raises(pytest.fail.Exception, match="TFRS_FASHION_NO_SKIP=1, but the tool xyz is not installed"):
        skip_or_fail("the tool xyz is not installed")
