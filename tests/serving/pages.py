"""What the pages of docs/ show."""

import re
from pathlib import Path


def python_blocks(page):
    """The Python code of a page, block by block."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
