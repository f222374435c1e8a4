"""Tests that share fixtures run in one worker, where there are several: else each would make the fixtures again."""

import os

import pytest


@pytest.mark.parametrize("number", range(3))
def test_groups_of_tests_are_known_to_the_workers(request: pytest.FixtureRequest, number: int) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("pytest runs in one process")
    assert request.node.nodeid.endswith("@" + str(request.path))
