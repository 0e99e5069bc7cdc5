"""The diffs of the recipes page run, as the program that they end at."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_after_the_diffs_run():
    world: dict[str, object] = {}
    blocks = re.findall(
        r"^```(?:diff|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 6
    for block in blocks:
        if not block.startswith("def"):
            lines = [line for line in block.splitlines() if not line.startswith("-")]
            assert all(line[:1] in ("", " ", "+") for line in lines)
            block = "\n".join(line[1:] for line in lines)
        exec(compile(block, str(PAGE), "exec"), world)
