"""Tables as text, and the warning that says what is probably not meant."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


class SparsityWarning(UserWarning):
    """What was asked for is possible, but probably not what is meant; it names leaf and rule.

    Example:
      >>> import warnings
      >>> warnings.filterwarnings("error", category=sj.SparsityWarning)
      >>> warnings.filterwarnings("default", category=sj.SparsityWarning)
    """


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    caption: str | None = None,
) -> str:
    """The table as lines of text: the first column to the left, all others to the right."""
    grid = Table(title=title, caption=caption, show_footer=bool(footer), title_justify="left")
    grid.caption_justify = "left"
    for index, column in enumerate(columns):
        foot = footer[index] if footer else ""
        grid.add_column(column, foot, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=400, color_system=None, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
