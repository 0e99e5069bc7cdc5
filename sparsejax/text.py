"""Tables of 80 columns and as HTML, and the warning that says what is probably not meant."""

import html
import io
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

WIDTH = 80
NAME, LEAST = 8, 6  # how much wider the first column is left than others, and the least of any
LONG = 24  # from which on paths are shortened
SLASH = re.compile("(?<=/)")
NUMBER = re.compile(r"[\d,./%e+-]*")


@dataclass(frozen=True)
class Table:
    """Rows of words: the first column to the left, all others to the right.

    Attributes:
      title: above it, "" for none.
      columns: their names.
      rows: as many words each.
      footer: a last row, () for none.
      caption: below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] = ()
    caption: str = ""

    def __str__(self) -> str:
        """Lines of 80 columns at most: what is too long for its column goes on below."""
        widths, gap = self._widths()
        grid = RichTable(
            title=self.title or None,
            show_footer=bool(self.footer),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, gap - 1, 0, 0),
            pad_edge=False,
        )
        for index, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            foot = self.footer[index] if self.footer else ""
            justify = "right" if index else "left"
            grid.add_column(column, foot, justify=justify, overflow="fold", width=width + gap - 1)  # type: ignore[arg-type]
        for name, *others in self.rows:
            grid.add_row(_at_slashes(name, widths[0]), *others)
        out = io.StringIO()
        width = max(WIDTH, sum(widths) + gap * len(widths)) + 1  # the last is the right edge
        console = Console(file=out, width=width, color_system=None, highlight=False, markup=False)
        console.print(grid)
        lines = [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
        for line in self.caption.splitlines():
            lines += textwrap.wrap(line, WIDTH)
        return "\n".join(lines)

    def _widths(self) -> tuple[list[int], int]:
        """The columns' widths, and the spaces between: two, or one where that is too wide.

        Numbers have what they need; the other columns share the rest. Paths go on below first, as
        long as only their slashes break, and are left wider then.
        """
        cells = list(zip(self.columns, *filter(None, (*self.rows, self.footer)), strict=True))
        widths = [max(map(len, column)) for column in cells]
        words = [i for i, column in enumerate(cells) if not all(map(NUMBER.fullmatch, column[1:]))]
        for i in set(range(len(cells))) - set(words):  # a name of two words has two lines
            widths[i] = max(map(len, (*cells[i][0].split(), *cells[i][1:])))
        gap = 2 if sum(widths) + 2 * len(widths) <= WIDTH else 1
        numbers = sum(w for i, w in enumerate(widths) if i not in words)
        rest = WIDTH - gap * len(widths) - numbers
        parts = max(len(part) for name in cells[0] for part in SLASH.split(name))
        widths[0] = max(parts, min(widths[0], rest - sum(widths[i] for i in words if i)))
        while sum(widths[i] for i in words) > max(rest, LEAST * len(words)):
            widest = max(words, key=lambda i: widths[i] - NAME * (i == 0))
            widths[widest] -= 1
        return widths, gap

    def html(self) -> str:
        """The same as HTML, for notebooks."""

        def line(tag: str, words: Sequence[str]) -> str:
            align = lambda index: "right" if index else "left"
            cells = (
                f'<{tag} style="text-align:{align(index)}">{html.escape(word)}</{tag}>'
                for index, word in enumerate(words)
            )
            return f"<tr>{''.join(cells)}</tr>"

        rows = "".join(line("td", row) for row in self.rows)
        foot = f"<tfoot>{line('th', self.footer)}</tfoot>" if self.footer else ""
        caption = html.escape("\n".join(filter(None, (self.title, self.caption))))
        return (
            f'<table><caption style="caption-side:bottom;text-align:left;white-space:pre-line">'
            f"{caption}</caption><thead>{line('th', self.columns)}</thead>"
            f"<tbody>{rows}</tbody>{foot}</table>"
        )


class SparsityWarning(UserWarning):
    """What was asked for is possible, but probably not what is meant; it names leaf and rule.

    Example:
      >>> import warnings
      >>> warnings.filterwarnings("error", category=sj.SparsityWarning)
      >>> warnings.filterwarnings("default", category=sj.SparsityWarning)
    """


# Their frames stand between a user's line and ours.
_LIBRARIES = ("sparsejax.", "optax.", "jax.", "flax.", "equinox.")


def warn(message: str, category: type[Warning] = SparsityWarning) -> None:
    """A warning at the user's line: the first on the stack outside of these libraries."""
    level, frame = 1, sys._getframe()
    while frame.f_back and f"{frame.f_globals.get('__name__', '')}.".startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _at_slashes(path: str, width: int) -> str:
    """The path in lines of this width, as far as its slashes allow."""
    lines = [""]
    for part in SLASH.split(path):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    caption: str | None = None,
) -> str:
    """The table as lines of text."""
    return str(Table(title, columns, list(rows), footer, caption or ""))


def wrapped(line: str) -> str:
    """The sentence in lines of 80 columns, those after the first indented."""
    lines = textwrap.wrap(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def brief(pattern: Any) -> str:
    """A pattern without its defaults: Block(4, 1)."""
    if not is_dataclass(pattern):
        return str(pattern)
    words: list[str] = []
    for number, spec in enumerate(fields(pattern)):
        value = getattr(pattern, spec.name)
        if value != spec.default:
            words.append(str(value) if len(words) == number else f"{spec.name}={value}")
    return f"{type(pattern).__name__}({', '.join(words)})"


def shortened(paths: Sequence[str]) -> tuple[list[str], str]:
    """Long paths without the names that all begin and end with, and a note that says so."""
    if max(map(len, paths), default=0) <= LONG:
        return list(paths), ""
    names = [path.split("/") for path in paths]
    longest = min(map(len, names), default=1) - 1 if len(set(paths)) > 1 else 0
    first = last = 0
    while first < longest and len({tuple(n[: first + 1]) for n in names}) == 1:
        first += 1
    while first + last < longest and len({tuple(n[len(n) - last - 1 :]) for n in names}) == 1:
        last += 1
    short = ["/".join(n[first : len(n) - last]) for n in names]
    whole = "/".join([*names[0][:first], "...", *names[0][len(names[0]) - last :]]) if names else ""
    return short, f"Paths are {whole}.\n" if first or last else ""
