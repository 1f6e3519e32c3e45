import pytest

from kws.commands.ui_settings import DEFAULT_PORT, check_config, with_page
from kws.config import Config, UiSettings
from kws.errors import ConfigError


@pytest.mark.parametrize(
    ("option", "key", "port"), [(None, None, DEFAULT_PORT), (None, 9000, 9000), (9001, 9000, 9001)]
)
def test_the_port_is_that_of_the_option_or_the_file_or_8420(option, key, port):
    config = Config(ui=UiSettings(port=key, max_pages=3))
    assert with_page(config, port=option).ui == UiSettings(port=port, max_pages=3)


def test_without_a_kws_toml_the_error_says_how_to_begin(tmp_path):
    path = tmp_path / "kws.toml"
    with pytest.raises(ConfigError, match=r"needs a kws\.toml\. Received: .*: touch /.*kws\.toml$"):
        check_config(path)
    path.touch()
    check_config(path)
