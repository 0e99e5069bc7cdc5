"""What a search found at each cost: the trials that no other beats, and a page of them."""

from collections.abc import Mapping, Sequence
from html import escape

from sparsejax.html_pages import COLORS, key, label, page, picture, table
from sparsejax.search.samplers import Trial

WIDTH, HEIGHT, LEFT, BOTTOM = 1000, 520, 90, 50


def front(trials: Sequence[Trial], *, gain: str, cost: str) -> list[Trial]:
    """The trials of which no other has as much of the gain at less cost, cheapest first.

    Args:
      trials: of `optimize`, which all have both numbers.
      gain: the number of which more is better, such as "accuracy".
      cost: the number of which less is better, such as "multiply_adds".

    Example:
      >>> square = lambda choice: {"score": choice["x"] % 3, "cost": choice["x"]}
      >>> sampler = sj.search.random_search({"x": range(6)}, seed=0)
      >>> trials = sj.search.optimize(square, sampler, num_trials=30)
      >>> [trial.choice["x"] for trial in sj.search.front(trials, gain="score", cost="cost")]
      [0, 1, 2]
    """
    ranked = sorted(trials, key=lambda trial: (trial.numbers[cost], -trial.numbers[gain]))
    found: list[Trial] = []
    for trial in ranked:
        if not found or trial.numbers[gain] > found[-1].numbers[gain]:
            found.append(trial)
    return found


def trade_off(
    searches: Mapping[str, Sequence[Trial]],
    *,
    gain: str,
    cost: str,
    title: str = "Trade-off",
    words: Mapping[str, str] | None = None,
) -> str:
    """An HTML page with every trial by what it costs and gains, and the front of each search.

    It needs no other file and no network. Hovering over a point tells its choice.

    Args:
      searches: the trials of each, by its name.
      gain, cost: as for `front`.
      title: above it.
      words: what the numbers are, by name, for the axes: their unit, and "modelled" where nothing
        measured them.

    Raises:
      ValueError: there is no trial.
    """
    every = [trial.numbers for trials in searches.values() for trial in trials]
    if not every:
        raise ValueError("trade_off needs a trial, got none.")
    words = words or {}
    x, y = _Scale(every, cost, LEFT, WIDTH - 20), _Scale(every, gain, HEIGHT - BOTTOM, 20)
    color = dict(zip(searches, COLORS * len(searches), strict=False))
    shapes = [*_axes(x, y, words.get(cost, cost), words.get(gain, gain))]
    rows = []
    for name, trials in searches.items():
        best = front(trials, gain=gain, cost=cost)
        shapes += [_point(trial, name, x, y, color[name], trial in best) for trial in trials]
        corners = " ".join(f"{x.of(trial):.1f},{y.of(trial):.1f}" for trial in best)
        shapes.append(f'<polyline points="{corners}" fill="none" stroke="{color[name]}"/>')
        rows += [
            [key(color[name], name), str(trial.number)]
            + [f"{trial.numbers[own]:.5g}" for own in (cost, gain)]
            + [escape(_words_of(trial))]
            for trial in best
        ]
    head = ["search", "trial", words.get(cost, cost), words.get(gain, gain), "choice"]
    return page(title, picture(title, WIDTH, HEIGHT, shapes), table(head, rows))


class _Scale:
    """From a number of a trial to a place in the picture."""

    def __init__(self, every: Sequence[Mapping[str, float]], name: str, begin: int, end: int):
        own = [numbers[name] for numbers in every]
        self._name, self._begin, self._end = name, begin, end
        self._low, self._span = min(own), (max(own) - min(own)) or 1.0
        self.marks = [(self._at(value), f"{value:.3g}") for value in self._ticks()]

    def of(self, trial: Trial) -> float:
        return self._at(trial.numbers[self._name])

    def _at(self, value: float) -> float:
        return self._begin + (self._end - self._begin) * (value - self._low) / self._span

    def _ticks(self) -> list[float]:
        return [self._low + self._span * part / 4 for part in range(5)]


def _axes(x: _Scale, y: _Scale, across: str, up: str) -> list[str]:
    floor = HEIGHT - BOTTOM
    return [
        *(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="20" y2="{floor}"/>' for at, _ in x.marks),
        *(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}"/>'
            for at, _ in y.marks
        ),
        *(label(at, floor + 18, text, "middle") for at, text in x.marks),
        *(label(LEFT - 8, round(at) + 4, text, "end") for at, text in y.marks),
        label((LEFT + WIDTH) / 2, HEIGHT - 8, across, "middle"),
        label(LEFT, 12, up, "start"),
    ]


def _point(trial: Trial, name: str, x: _Scale, y: _Scale, color: str, is_best: bool) -> str:
    said = escape(f"{name} {trial.number}: {_words_of(trial)}")
    return (
        f'<circle cx="{x.of(trial):.1f}" cy="{y.of(trial):.1f}" r="{4 if is_best else 2.5}" '
        f'fill="{color}" fill-opacity="{1 if is_best else 0.35}"><title>{said}</title></circle>'
    )


def _words_of(trial: Trial) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial.choice.items()
    )
