import pytest

from kws.config import parse_config
from kws.errors import KwsError


@pytest.fixture(scope="session")
def refused():
    """Return what gives the error that some settings are answered with."""

    def error_of(text):
        with pytest.raises(KwsError) as caught:
            parse_config(text)
        assert caught.value.__cause__ is None or caught.value.__suppress_context__
        return caught.value

    return error_of
