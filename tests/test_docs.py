"""The Python on the documentation's pages runs, page by page from top to bottom."""

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda p: p.stem
)
def test_python_of_page_runs(page):
    world: dict[str, object] = {}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), world)
