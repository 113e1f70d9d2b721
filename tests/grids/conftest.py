import pytest


@pytest.fixture
def write(tmp_path):
    """Writes config.yaml and gives its path."""

    def write(text):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return file

    return write
