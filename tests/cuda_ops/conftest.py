"""What the tests of both ops share."""

from collections.abc import Iterator

import pytest

from cuda_ops.backends import BACKENDS, default_impl


@pytest.fixture(scope="module", params=["ref", "cpu"])
def back_end(request: pytest.FixtureRequest) -> Iterator[str]:
    """The back end that ``impl="auto"`` means within a test, each in turn."""
    if request.param == "cpu" and not BACKENDS["cpu"].load().ready:
        pytest.skip(f"no native CPU kernels: {BACKENDS['cpu'].load().detail}")
    with default_impl(request.param):
        yield request.param
