"""The page shows every job on its engine's line, needs nothing else, and trusts no name."""

import re
from html.parser import HTMLParser

import pytest

import sparsejax as sj
from sparsejax.deploy import Pipeline, Task

TASKS = (Task("a<b>", {"e": 20}, 50), Task("late", {"f": 20}, 100, 30))
RUN = sj.deploy.simulate(
    Pipeline(TASKS), horizon_ns=200, takes_ns=lambda job, engine: {"e": 20, "f": 40}[engine]
)


def test_a_bar_for_each_job():
    page = sj.deploy.timeline(RUN, title="Two & two")
    assert page.count("<rect") == len(RUN.ran) == 6
    assert page.count('class="late"') == len(RUN.missed) == 2
    assert "2 of 6 jobs ended late" in page and "<title>Two &amp; two</title>" in page
    assert "a&lt;b&gt;" in page and "<b>" not in page
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', page)]
    assert sorted(widths) == [92.0] * 4 + [184.0] * 2  # a tenth of 920, and a fifth
    HTMLParser().feed(page)


def test_the_page_needs_nothing_else():
    page = sj.deploy.timeline(RUN)
    assert not re.findall(r"https?:|<script|@import|url\(", page)


def test_a_part_of_the_run():
    page = sj.deploy.timeline(RUN, begin_ns=50, end_ns=100)
    assert page.count("<rect") == 1
    with pytest.raises(ValueError, match="0 <= begin_ns < end_ns, got 5 and 5"):
        sj.deploy.timeline(RUN, begin_ns=5, end_ns=5)
