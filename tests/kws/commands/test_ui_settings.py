import pytest

from kws.commands.ui_settings import DEFAULT_PORT, with_page
from kws.config import Config, UiSettings


@pytest.mark.parametrize(
    ("option", "key", "port"), [(None, None, DEFAULT_PORT), (None, 9000, 9000), (9001, 9000, 9001)]
)
def test_the_port_is_that_of_the_option_or_the_file_or_8420(option, key, port):
    config = Config(ui=UiSettings(port=key, max_pages=3))
    assert with_page(config, port=option).ui == UiSettings(port=port, max_pages=3)
