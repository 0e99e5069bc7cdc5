"""What mkdocs does to pages that are written for the repository: links that fit the site."""

from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "README.md"


def on_page_markdown(markdown, page, **_):
    """The experiments' page, with its pictures where the site has them and without file links."""
    if page.file.src_uri != "experiments.md":
        return markdown
    text = EXPERIMENTS.read_text()
    text = text.replace("(../docs/plots/", "(plots/").replace("[suite.py](suite.py)", "`suite.py`")
    return text.replace("docs/methods.md", "[Methods](methods.md)")
