"""Movie sentiment and MiniLM: fetched by name and hash, wired right, pruned in every setting."""

import functools
import io
import subprocess
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from experiments.data import sentiment
from experiments.data.packages import NotHereError, Package, default_cache, fetch
from experiments.models import minilm
from experiments.recipes import calibrated, magnitude, soft
from experiments.runs.table import Job
from experiments.settings import text, text_tuning

PACKAGE = Package(
    "a", "1", "a-1.tar.gz", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
)
TINY = {"vocabulary": 20, "positions": 64, "layers": 1, "features": 8, "hidden": 16, "heads": 2}


def pip(content=b"foo", error=None):
    """A stand-in for subprocess.run that knows `pip download`."""
    calls = []

    def run(arguments, **options):
        calls.append((arguments, Path(arguments[-1]).read_text()))
        if error is not None:
            raise subprocess.CalledProcessError(1, arguments, stderr=f"WARNING\n{error}\n")
        if content is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / PACKAGE.file).write_bytes(content)

    return run, calls


def test_a_package_is_fetched_once_by_name_and_hash(tmp_path):
    run, calls = pip()
    path = fetch(PACKAGE, tmp_path, run=run)
    assert fetch(PACKAGE, tmp_path, run=run) == path
    ((arguments, wanted),) = calls
    assert wanted == f"a==1 --hash=sha256:{PACKAGE.sha256}\n"
    assert "--require-hashes" in arguments and "--no-deps" in arguments
    assert [file.name for file in path.parent.iterdir()] == [PACKAGE.file]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": "ERROR: no a"}, "pip download a failed: ERROR: no a"),
        ({"content": None}, "pip download left no a-1.tar.gz"),
        ({"content": b"bar"}, "is not the known package, its sha256 differs"),
    ],
)
def test_why_a_package_is_not_here_is_said(tmp_path, options, message):
    with pytest.raises(NotHereError, match=message):
        fetch(PACKAGE, tmp_path, run=pip(**options)[0])


LINES = "1\t2.5\tGood film.\n2\t-0.1\tToo long. \n3\t0.0\tA film.\n4\t-3\tAwful.\n"


def test_sentences_are_split_without_the_undecided():
    found = sentiment.split(LINES, "here", 2)
    assert sorted(found.train_texts + found.test_texts) == ["Awful.", "Good film.", "Too long."]
    labels = [*found.train_labels, *found.test_labels]
    by_text = dict(zip(found.train_texts + found.test_texts, labels, strict=True))
    assert by_text == {"Good film.": 1, "Too long.": 0, "Awful.": 0}
    assert found.train_texts == sentiment.split(LINES, "there", 2).train_texts


def test_a_package_without_the_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other"), io.BytesIO())
    monkeypatch.setattr(sentiment, "fetch", lambda package, folder: path)
    with pytest.raises(NotHereError, match="does not hold hutto"):
        sentiment.movie_sentiment()


def needs(package):
    if not (default_cache() / "packages" / package.file).exists():
        pytest.skip(
            f"{package.name} is not fetched: python -m experiments run sun2023_wanda --smoke"
        )


def test_the_packaged_sentences_are_as_counted():
    needs(sentiment.PACKAGE)
    found = sentiment.movie_sentiment()
    assert (len(found.train_texts), len(found.test_texts)) == (8_000, 2_568)
    assert 0.48 < found.train_labels.mean() < 0.52
    assert len(set(found.train_texts + found.test_texts)) >= 10_568 - 2


def bert_shapes():
    """Names and shapes of the packaged file, but for the position ids."""
    shapes = {
        f"embeddings.{n}_embeddings.weight": (count, 384)
        for n, count in (("word", 30_522), ("position", 512), ("token_type", 2))
    }
    dense = {"pooler.dense": (384, 384)}
    norms = ["embeddings.LayerNorm"]
    for i in range(6):
        layer = f"encoder.layer.{i}"
        dense |= {f"{layer}.attention.self.{n}": (384, 384) for n in ("query", "key", "value")}
        dense |= {f"{layer}.attention.output.dense": (384, 384)}
        dense |= {f"{layer}.intermediate.dense": (1536, 384), f"{layer}.output.dense": (384, 1536)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    shapes |= {f"{n}.weight": shape for n, shape in dense.items()}
    shapes |= {f"{n}.bias": shape[:1] for n, shape in dense.items()}
    return shapes | {f"{n}.{kind}": (384,) for n in norms for kind in ("weight", "bias")}


def test_the_file_fills_the_model():
    weights = {name: np.broadcast_to(np.float32(0), s) for name, s in bert_shapes().items()}
    ours = jax.eval_shape(minilm.variables_from, weights)
    ids = jnp.zeros((1, 4), jnp.int32)
    theirs = jax.eval_shape(minilm.MiniLM().init, jax.random.key(0), ids, jnp.ones((1, 4)))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.leaves(ours) == jax.tree.leaves(theirs)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == 22_713_216  # "22.7 M"
    plan = text.make_plan(ours["params"], sj.Unstructured(), 0.5)
    assert len(plan.leaves) == 36 and plan.num_weights == 10_616_832


def test_the_packaged_weights_tell_sentences_apart():
    """The cosines of the package's own README sentences; unrelated ones stay below 0.15."""
    reason = "needs the extra text: pip install 'sparsejax[text]'"
    pytest.importorskip("tokenizers", reason=reason)
    pytest.importorskip("safetensors", reason=reason)
    needs(minilm.PACKAGE)
    pretrained = minilm.load()
    assert sum(leaf.size for leaf in jax.tree.leaves(pretrained.variables)) == 22_713_216
    food = "A man is eating food.", "A man is eating a piece of bread."
    ids, mask = pretrained.tokenize([*food, "The girl is carrying a baby."])
    assert ids[0, :8].tolist() == [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]
    assert mask.sum(1).tolist() == [8, 11, 9]
    x = text.encode(pretrained.variables["params"], ids[:, :12], mask[:, :12])
    cosines = np.asarray(x @ x.T)
    assert cosines[0, 1] == pytest.approx(0.755, abs=0.001)
    assert np.abs(cosines[2, :2]).max() < 0.15


@pytest.fixture
def tiny(monkeypatch):
    """A task with a tiny encoder; label = whether the sentence has the token 7."""
    monkeypatch.setattr(minilm, "MiniLM", functools.partial(minilm.MiniLM, **TINY))
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 20, (160, 6)).astype(np.int32)
    mask = (np.arange(6) < generator.integers(3, 7, (160, 1))).astype(np.float32)
    labels = ((ids == 7) & (mask > 0)).any(1).astype(np.int32)
    shapes = jax.eval_shape(minilm.MiniLM().init, jax.random.key(0), ids, mask)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(generator.normal(size=s.shape), s.dtype), shapes)
    part = lambda start, stop: (ids[start:stop], mask[start:stop])
    head = text.fit_head(text.features(params, part(0, 96)), labels[:96])
    train, test = (part(0, 96), labels[:96]), (part(96, 160), labels[96:])
    task = text.Task("here", *train, *test, params, head, text.features(params, test[0]))
    for module in (text, text_tuning):
        monkeypatch.setattr(module, "load", lambda *arguments: task)
    return task


def job(folder):
    return Job(0, False, None, folder, lambda done, total, numbers: None)


def test_padding_changes_nothing_and_is_not_calibrated(tiny):
    ids, _ = tiny.train_inputs
    short = ids[:1, :3], np.ones((1, 3), np.float32)
    long = ids[:1], np.array([[1, 1, 1, 0, 0, 0]], np.float32)
    plan = text.make_plan(tiny.params, sj.Unstructured(), 0.5)
    encode = jax.jit(text.encode)
    np.testing.assert_allclose(encode(tiny.params, *short), encode(tiny.params, *long), atol=1e-5)
    found = [
        sj.post.calibrate(text.encode, tiny.params, plan, [inputs]) for inputs in (short, long)
    ]
    for path in found[0]:
        np.testing.assert_allclose(found[0][path].gram, found[1][path].gram, rtol=1e-3, atol=1e-3)


def test_the_head_is_the_minimum_of_its_loss():
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(50, 3)), generator.integers(0, 2, 50)
    head = text.fit_head(x, labels)

    def loss(kernel, bias):
        losses = -jax.nn.log_softmax(x @ kernel + bias)[np.arange(50), labels]
        return losses.sum() + 0.05 * jnp.square(kernel[:, 1] - kernel[:, 0]).sum()

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(head["kernel"], head["bias"])
    assert max(np.abs(g).max() for g in grads) < 1e-3


@pytest.mark.parametrize("method", ["unpruned", "magnitude", "wanda", "sparse_gpt"])
def test_one_shot_settings_meet_the_plan(tiny, tmp_path, method):
    pattern, sparsity = (sj.NM(2, 4), 0.5) if method == "wanda" else (sj.Unstructured(), 0.6)
    sparsity = 0.0 if method == "unpruned" else sparsity
    setting = text.OneShotText(getattr(calibrated, method), sparsity, pattern)
    result = setting.run(job(tmp_path))
    assert result["zeros"] == result["planned_zeros"]
    assert result["prunable"] == 4 * 64 + 2 * 128
    assert (result["cosine_to_dense"] > 0.9999) == (method == "unpruned")
    assert result["dense_accuracy"] >= 0.6
    amount = "NM(n=2, m=4, axis=-2)" if method == "wanda" else f"{100 * sparsity:g}"
    assert setting.label == f"minilm-movies-{method}-{amount}"


@pytest.mark.parametrize("recipe", [magnitude.gmp, soft.movement, soft.pdp_pretrained])
def test_a_fine_tuning_learns_and_meets_the_plan(tiny, tmp_path, recipe):
    setting = text_tuning.FineTuneText(recipe, 0.5, steps=12, batch_size=16)
    result = setting.run(job(tmp_path))
    assert result["zeros"] == result["planned_zeros"] == 256
    assert result["accuracy"] >= 0.6
    assert setting.label == f"minilm-tuned-{recipe.__name__}-50"
