"""The setting of CANAO: depth, then widths, of an encoder cut out of MiniLM, within milliseconds.

A trial cuts the encoder out, distils it for a few steps from MiniLM with its head, and is judged on
sentences that are held back; what is found is distilled longer and tested. Times are those of
`measured/encoder.json`, which `python -m experiments.settings.search_encoder` measures.
"""

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.models import minilm, narrow_bert
from experiments.models.narrow_bert import Sizes
from experiments.runs.table import Job
from experiments.settings.encoder_texts import TOKENS, Texts, load
from experiments.settings.kept_steps import kept_steps
from experiments.settings.searching import account, stopped_by_ctrl_c
from experiments.settings.text import accuracy, fit_head

FILE = Path(__file__).parent / "measured" / "encoder.json"
EMBEDDINGS = ("word", "position", "token_type", "norm")  # which stay as they are cut
FITTED = 200  # sentences that a head is fitted to before the first step
JUDGED_AT_ONCE = 100
HEADS = 12
FULL = Sizes(6, 384, 1_536, HEADS)
DEPTHS = tuple(range(1, 7))
WIDTHS = {"features": (128, 256, 384), "hidden": (384, 768, 1_536), "heads": (4, 8, 12)}
STRENGTH = 0.5  # of accuracy for a millisecond too many, as a fraction of the limit


class Space(NamedTuple):
    """What a search is given: its limit in milliseconds, and how a choice is judged."""

    limit: float
    evaluate: Callable[[Mapping[str, Any]], dict[str, float]]
    num_trials: tuple[int, int]
    job: Job


Found = tuple[Sizes, list[sj.search.Trial]]
Searcher = Callable[[Space], Found]


def controller(given: Space) -> Found:
    """CANAO: a controller that REINFORCE trains, first of the depth, then of the widths."""
    return _in_two_phases(given, sj.search.policy_gradient)


def tpe(given: Space) -> Found:
    """Optuna's TPE in the same two phases."""
    return _in_two_phases(given, sj.search.tpe)


def random_search(given: Space) -> Found:
    """Choices at random in the same two phases: the control."""
    return _in_two_phases(given, sj.search.random_search)


def _in_two_phases(given: Space, sampler: Callable[..., sj.search.Sampler]) -> Found:
    given.job.folder.mkdir(parents=True, exist_ok=True)
    with stopped_by_ctrl_c(given.job) as report:
        trials = sj.search.two_phases(
            given.evaluate,
            {"layers": DEPTHS},
            lambda kept: WIDTHS,
            lambda space: sampler(space, seed=given.job.seed),
            num_trials=given.num_trials,
            file=given.job.folder / "trials",
            report=report,
        )
    return sizes_of(sj.search.best(trials).choice), trials


def whole(given: Space) -> Found:
    """No search: MiniLM itself, trained as long."""
    return FULL, []


def shallow(given: Space) -> Found:
    """No search: as many layers of full width as are fast enough."""
    return _largest_within(given, (Sizes(depth, *FULL[1:]) for depth in DEPTHS)), []


def narrow(given: Space) -> Found:
    """No search: all six layers, all widths shrunk alike until they are fast enough."""
    alike = zip(WIDTHS["features"], WIDTHS["hidden"], WIDTHS["heads"], strict=True)
    return _largest_within(given, (Sizes(6, *widths) for widths in alike)), []


def _largest_within(given: Space, ladder: Any) -> Sizes:
    fitting = [sizes for sizes in ladder if milliseconds(sizes) <= given.limit]
    if not fitting:
        raise ValueError(f"no encoder of this kind takes {given.limit:.3g} ms or less.")
    return fitting[-1]


def sizes_of(choice: Mapping[str, Any]) -> Sizes:
    """What a choice leaves out is as in MiniLM."""
    return FULL._replace(**choice)


@dataclass(frozen=True)
class SearchEncoder:
    """Search sizes, distil the encoder that they make, and test it."""

    headline: ClassVar[str] = "accuracy"

    searcher: Searcher
    fraction: float = 0.5
    """The milliseconds allowed, as a fraction of MiniLM's."""
    num_trials: tuple[int, int] = (6, 10)
    tried: int = 12
    """Steps of a trial."""
    steps: int = 80
    """Of what was found."""
    batch_size: int = 16
    learning_rate: float = 3e-4

    @property
    def label(self) -> str:
        """minilm-searcher-percent."""
        return f"minilm-{self.searcher.__name__}-{100 * self.fraction:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Search, distil, test; goes on from what is in the job's folder."""
        texts = load(job.data, job.smoke)
        limit = self.fraction * milliseconds(FULL)
        count, tried, steps = self.num_trials, self.tried, self.steps
        if job.smoke:
            count, tried, steps = (1, 1), 2, 2

        def evaluate(choice: Mapping[str, Any]) -> dict[str, float]:
            sizes = sizes_of(choice)
            student = _Student(texts, sizes, self, job.seed)
            state = student.start(tried)
            for number in range(tried):
                state, _ = student.step(state, number)
            found = student.accuracy(state, of_test=False)
            over = max(0.0, milliseconds(sizes) / limit - 1)
            score = found - STRENGTH * over
            return {"score": score, "accuracy": found, "milliseconds": milliseconds(sizes)}

        sizes, trials = self.searcher(Space(limit, evaluate, count, job))
        student = _Student(texts, sizes, self, job.seed)
        state = kept_steps(job, "found", student.start(steps), student.step, steps)
        teacher = float((texts.test_logits.argmax(1) == texts.test_labels).mean())
        return {
            "accuracy": student.accuracy(state, of_test=True),
            "teacher_accuracy": teacher,
            "milliseconds": milliseconds(sizes),
            "limit": limit,
            "times": _times()["source"],
            "sizes": sizes._asdict(),
            "data": f"movie sentiment from {texts.source}",
            **(account(trials, "milliseconds", "accuracy") if trials else {}),
        }


class _Student:
    """An encoder of some sizes with a head, and its distillation."""

    def __init__(self, texts: Texts, sizes: Sizes, setting: SearchEncoder, seed: int):
        self._texts, self._sizes, self._setting, self._seed = texts, sizes, setting, seed
        self._run = jax.jit(self._features)

    def start(self, steps: int) -> Any:
        """Layers cut out of MiniLM's, and a head that is fitted to what the cut left."""
        texts, sizes = self._texts, self._sizes
        rate = optax.cosine_onecycle_schedule(
            max(2, steps), self._setting.learning_rate, pct_start=0.2
        )
        self._tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
        encoder = narrow_bert.cut_out(texts.params, sizes, heads=HEADS)
        self._fixed = {name: encoder.pop(name) for name in EMBEDDINGS}
        few = tuple(array[:FITTED] for array in texts.inputs)
        head = fit_head(self._all_features(encoder, few), texts.labels[:FITTED])
        params = {"encoder": encoder, "head": head}
        self._update = jax.jit(self._updated)
        return params, self._tx.init(params)

    def step(self, state: Any, number: int) -> tuple[Any, Any]:
        """A step of distillation on the batch of this number."""
        texts, rng = self._texts, np.random.default_rng((self._seed, number))
        which = rng.integers(0, texts.num_train, self._setting.batch_size)
        inputs = tuple(array[which] for array in texts.inputs)
        return self._update(state, self._fixed, inputs, texts.logits[which], texts.labels[which])

    def _updated(
        self, state: Any, fixed: Any, inputs: Any, wanted: Any, labels: Any
    ) -> tuple[Any, Any]:
        params, opt_state = state

        def loss(params: Any) -> Any:
            x = self._features(params["encoder"], fixed, *inputs)
            logits = x @ params["head"]["kernel"] + params["head"]["bias"]
            return sj.distill.distillation_loss(logits, wanted, labels)

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = self._tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def _features(self, encoder: Any, fixed: Any, ids: Any, mask: Any) -> Any:
        tokens = narrow_bert.encode(encoder | fixed, ids, mask, heads=self._sizes.heads)
        return minilm.sentence_features(tokens, mask)

    def _all_features(self, encoder: Any, inputs: Any) -> np.ndarray:
        """Of all sentences, in batches of one size."""
        starts = range(0, len(inputs[0]), JUDGED_AT_ONCE)
        batches = [tuple(array[at : at + JUDGED_AT_ONCE] for array in inputs) for at in starts]
        return np.concatenate(
            [np.asarray(self._run(encoder, self._fixed, *batch)) for batch in batches]
        )

    def accuracy(self, state: Any, *, of_test: bool) -> float:
        """On the test sentences, or on those held back from training."""
        texts = self._texts
        inputs, labels = texts.test_inputs, texts.test_labels
        if not of_test:
            inputs = tuple(array[texts.num_train :] for array in texts.inputs)
            labels = texts.labels[texts.num_train :]
        params = state[0]
        return accuracy(params["head"], self._all_features(params["encoder"], inputs), labels)


@functools.cache
def _times() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def milliseconds(sizes: Sizes) -> float:
    """Of one sentence through an encoder: its layers by their widths."""
    return sizes.layers * _times()["layer"][_name(sizes[1:])]


def _name(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))


def measure() -> dict[str, Any]:
    """The times on this machine: a quarter of those of four layers; none above a wider one's."""
    ids, mask = jnp.zeros((1, TOKENS), jnp.int32), jnp.ones((1, TOKENS))
    params = jax.jit(minilm.MiniLM().init)(jax.random.key(0), ids, mask)["params"]
    kinds = list(itertools.product(*WIDTHS.values()))

    def call(widths: tuple[int, ...]) -> Callable[[], Any]:
        own = narrow_bert.cut_out(params, Sizes(4, *widths), heads=HEADS)
        run = jax.jit(functools.partial(narrow_bert.encode, heads=widths[2]))
        return lambda: run(own, ids, mask)

    costs = sj.search.PathCosts.measure([[call(widths) for widths in kinds]])
    times = dict(zip(kinds, costs.edges[0], strict=True))
    wider = lambda a, b: all(own >= other for own, other in zip(a, b, strict=True))
    least = lambda kind: min(time for other, time in times.items() if wider(other, kind))
    layer = {_name(kind): least(kind) / 4 for kind in kinds}
    return {"source": costs.source, "layer": layer}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(measure(), indent=1) + "\n")
    print(FILE.read_text())
