"""HTML pages of one file, for screens of any size and theme."""

from html import escape

COLORS = ("#2a78d6", "#1baf7a", "#eda100", "#8a63d2", "#eb6834", "#4aa3a2", "#b0567f", "#7a8a3c")
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1a; --page: #fcfcfb; --line: #d9d8d4;
  --late: #d03b3b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecebe8; --page: #161615; --line: #3b3a37 }
}
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif }
.scroll { overflow-x: auto }
svg { min-width: 50rem; width: 100%; height: auto; font: 12px system-ui, sans-serif }
text { fill: var(--ink) } line { stroke: var(--line) }
.late { stroke: var(--late); stroke-width: 2.5 }
td, th { padding: .15rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .5em }
"""


def page(title: str, *parts: str) -> str:
    """The file: the title, and parts of HTML below it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"{chr(10).join(parts)}\n</body></html>\n"
    )


def picture(title: str, width: int, height: int, shapes: list[str]) -> str:
    """An SVG of these shapes, which scrolls where the screen is narrow."""
    return (
        f'<div class="scroll"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n{chr(10).join(shapes)}\n</svg></div>'
    )


def label(x: float, y: float, text: str, anchor: str) -> str:
    """Text in a picture."""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; the cells are HTML."""
    lines = [
        "".join(f"<{tag}>{cell}</{tag}>" for cell in row)
        for tag, row in [("th", [escape(word) for word in head]), *(("td", row) for row in rows)]
    ]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def key(color: str, text: str) -> str:
    """A name with its colour before it, for a table."""
    return f'<span class="key" style="background:{color}"></span>{escape(text)}'
