"""What a public function says of an argument that is something else: table of call and message."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

PARAMS = {"body": {"kernel": jnp.ones((8, 4))}, "head": {"kernel": jnp.ones((4, 2))}}
X = np.ones((2, 8), np.float32)
RULES = {"kernel": sj.Unstructured()}
PLAN = sj.plan(PARAMS, RULES, sparsity=0.5)
KEY, TX, GMP = jax.random.key(0), optax.sgd(0.1), sj.gmp(0, 10)
MASKS = jax.tree.map(lambda p: p != 0, PARAMS)
LOCAL = sj.federated.local_sgd(lambda p, x: x, TX, epochs=1, batch_size=1)


def apply(params, x):
    return x @ params["body"]["kernel"] @ params["head"]["kernel"]


def switched(params, x, train):
    return apply(params, x) if train else x


def plan(rules, **options):
    return lambda: sj.plan(PARAMS, rules, **{"sparsity": 0.5, **options})


def sparsify(*args, **options):
    return lambda: sj.sparsify(*args, **{"key": KEY, **options})


# (call, what is said: who, needed, came, to do)
RULE_CASES = {
    "glob": (plan({"*kernel": sj.Unstructured()}), r"plan needs reg.*'\*kernel'.*'\.\*kernel'"),
    "two stars": (plan({"**/kernel": sj.Unstructured()}), r"write '\.\*kernel'"),
    "glob within": (plan({"bo*y/kernel": sj.Unstructured()}), r"glob it would be .*body/kernel"),
    "open bracket": (plan({"[kernel": sj.Unstructured()}), "plan needs regular expressions"),
    "not called": (plan({"kernel": sj.Unstructured}), r"got the class Unst.*call it: Unstr.*\("),
    "not called, NM": (plan({"kernel": sj.NM}), r"the class NM; call it"),
    "pair not called": (plan({"kernel": (sj.Block, 0.5)}), "the class Block; call it"),
    "name": (plan({"kernel": "unstructured"}), r"for 'kernel', got 'unstructured'; pass sj.Unst"),
    "number": (plan({"kernel": 0.9}), r"got float; pass \(sj.Unstructured\(\), 0.9\)"),
    "pair exchanged": (plan({"kernel": (0.9, sj.Unstructured())}), "got float; pass"),
    "pair of names": (plan({"kernel": (sj.Unstructured(), "0.9")}), "got '0.9' as the sparsity"),
    "list": (plan([("kernel", sj.Unstructured())]), "needs rules as a dict .* got list"),
    "pattern": (plan(sj.Unstructured()), "needs rules as a dict .* got Unstructured"),
    "key": (plan({3: sj.Unstructured()}), "needs regular expressions .* got int"),
    "nowhere": (plan({"zzqq": sj.NM(2, 4)}), "the paths are body/kernel, head/kernel"),
    "exchanged": (lambda: sj.plan(RULES, PARAMS, sparsity=0.5), "plan needs a pattern.*got dict"),
    "glob of l1": (
        lambda: sj.activations.l1({"relu": np.ones((2, 3))}, {"*relu": 1.0}),
        r"l1 needs regular expressions.*'\*relu'.*write '\.\*relu'",
    ),
    "key of l1": (
        lambda: sj.activations.l1({"relu": np.ones((2, 3))}, {3: 1.0}),
        "l1 needs regular expressions .* got int",
    ),
    "glob of fedper": (
        lambda: sj.federated.fedper(LOCAL, ("*head",)),
        r"fedper needs regular expressions.*write '\.\*head'",
    ),
    "glob of add_penalty": (
        lambda: sj.add_penalty(sj.linf(), 0.1, where="*kernel"),
        r"add_penalty needs regular expressions.*write '\.\*kernel'",
    ),
    "allocator": (plan(RULES, allocate="erk"), "plan needs an allocator, got 'erk'; pass the fun"),
    "sparsity": (plan(RULES, sparsity="0.5"), r"plan needs a sparsity in \[0, 1\), got '0.5'"),
}
TRAINING_CASES = {
    "method": (sparsify(TX, sj.gmp, PLAN), r"needs a method, got the function gmp; call it: gmp"),
    "method, soft": (sparsify(TX, sj.soft.pdp, PLAN), "got the function pdp; call it"),
    "method by name": (sparsify(TX, "gmp", PLAN), "needs a method, got 'gmp'; pass sj.gmp"),
    "optimizer": (sparsify(optax.adam, GMP, PLAN), "optax transform, got the function adam; call"),
    "exchanged": (sparsify(GMP, TX, PLAN), r"got MaskTransform; its arg.* sparsify\(tx, method, p"),
    "plan first": (sparsify(TX, PLAN, GMP), r"got Plan; its arguments come as"),
    "rules": (sparsify(TX, GMP, RULES), r"sparsify needs a plan .* got dict; make it by sj.plan"),
    "params": (sparsify(TX, GMP, PARAMS), "sparsify needs a plan made by sj.plan, got dict"),
    "no plan": (sparsify(TX, GMP, None), "sparsify needs a plan made by sj.plan, got NoneType"),
    "plan not called": (sparsify(TX, GMP, sj.plan), "got the function plan; call it"),
    "masks": (sparsify(TX, GMP, PLAN, initial_masks=MASKS), "as a function .* got dict; pass lam"),
    "reparam": (sparsify(TX, GMP, PLAN, reparam=sj.soft.straight_through), "Reparam, .* call it"),
    "learned_tx": (sparsify(TX, GMP, PLAN, learned_tx=optax.sgd), "the function sgd; call it"),
    "chain": (lambda: sj.chain(GMP, sj.rigl), "chain needs a mask transform, .* rigl; call it"),
    "every": (lambda: sj.every(10, sj.prune), "every needs a mask .* prune; call it"),
    "every, exchanged": (lambda: sj.every(GMP, 10), r"come as every\(num_steps, transform\)"),
    "score": (
        lambda: sj.prune("magnitude", lambda s: 1.0),
        "prune needs a score, .*pass sj.scores.magn",
    ),
    "score of gmp": (lambda: sj.gmp(0, 10, score="magnitude"), "gmp needs a score"),
    "schedule": (
        lambda: sj.drop(sj.scores.magnitude, 0.3),
        "function step -> number, got float; pass",
    ),
    "penalty": (lambda: sj.add_penalty(sj.linf, 0.1), "needs a penalty, .* linf; call it"),
    "loss": (lambda: sj.before.snip(PARAMS, [X]), "snip needs a loss, .* got dict"),
    "memory": (
        lambda: sj.reports.training_memory(PLAN, PARAMS, TX),
        r"come as training_memory\(params, p",
    ),
    "ticket": (
        lambda: sj.studies.lottery_ticket(apply, PARAMS, RULES),
        "lottery_ticket needs a plan",
    ),
    "initial": (lambda: sj.masks.full_masks(PLAN, PARAMS), r"come as full_masks\(params, plan\)"),
    "zeros": (lambda: sj.masks.masks_from_zeros(PLAN, PARAMS), "come as masks_from_zeros"),
    "projection": (lambda: sj.structured.onto_patterns(RULES), "onto_patterns needs a plan"),
}
FUNCTION_CASES = {
    "report, exchanged": (lambda: sj.report(PLAN, PARAMS), r"dict; .* report\(params, plan, opt"),
    "report, rules": (lambda: sj.report(PARAMS, RULES), "report needs a plan .* got dict; make it"),
    "report, called": (
        lambda: sj.report(PARAMS, PLAN, apply_fn=apply(PARAMS, X), example=X),
        "report needs a function .* got Array",
    ),
    "calibrate": (lambda: sj.post.calibrate(apply, PLAN, PARAMS, [X]), "come as calibrate"),
    "rearrange": (
        lambda: sj.structured.rearrange(PARAMS, apply, PLAN, X),
        "rearrange needs a function",
    ),
    "accelerate": (lambda: sj.accelerate(PARAMS), "accelerate needs a function"),
    "compile, plan": (lambda: sj.compile(apply, PARAMS, X, plan=RULES), "compile needs a plan"),
    "compile, exchanged": (
        lambda: sj.compile(PARAMS, apply, X),
        "needs a function .* dict",
    ),
}
TRACERS = {
    "compile": sj.compile,
    "multiply_adds": sj.multiply_adds,
    "channel_groups": sj.channel_groups,
}
INPUT_CASES = {
    "none": (lambda f: f(apply, PARAMS), "needs an example of each input .* got none; call"),
    "one of two": (lambda f: f(switched, PARAMS, X), "an example of each input .*'train'"),
    "too many": (lambda f: f(apply, PARAMS, X, X), "an example of each input of apply_fn, got 2"),
    "static bool": (lambda f: f(switched, PARAMS, X, True), r"functools.partial\(apply_fn, name"),
    "static name": (lambda f: f(switched, PARAMS, X, "train"), "got 'train'; bind .*partial"),
    "static int": (
        lambda f: f(lambda p, x, n: apply(p, x).reshape(n, -1), PARAMS, X, 2),
        r"functools.partial\(apply_fn, name",
    ),
    "function": (lambda f: f(apply, PARAMS, jnp.tanh), "needs arrays as inputs, got "),
    "module": (
        lambda f: f(apply, PARAMS, eqx.nn.MLP(2, 2, 2, 1, key=KEY)),
        "needs arrays as inputs, got ",
    ),
    "option": (lambda f: f(switched, PARAMS, X, train=True), r"no option 'train'; .*train=\.\.\."),
}


CASES = {"rules": RULE_CASES, "training": TRAINING_CASES, "functions": FUNCTION_CASES}
TABLE = [(kind, name) for kind, cases in CASES.items() for name in cases]


@pytest.mark.parametrize(("kind", "name"), TABLE, ids=lambda part: part)
def test_a_wrong_argument_is_named_with_what_to_do(kind, name):
    call, message = CASES[kind][name]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("function", TRACERS)
@pytest.mark.parametrize("name", INPUT_CASES)
def test_a_wrong_input_is_named_with_what_to_do(function, name):
    call, message = INPUT_CASES[name]
    with pytest.raises(TypeError, match=f"^{function} .*{message}"):
        call(TRACERS[function])


def test_what_is_bound_is_no_input():
    bound = functools.partial(switched, train=True)
    assert sj.multiply_adds(bound, PARAMS, X) == sj.multiply_adds(apply, PARAMS, X)
    np.testing.assert_allclose(sj.compile(bound, PARAMS, X, tune=False)(X), apply(PARAMS, X))
