"""Every public name is documented: what it returns, its arguments by name, examples that run."""

import ast
import doctest
import functools
import importlib
import inspect
import operator
import pkgutil
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import sparsejax as sj

SECTIONS = ["Args", "Returns", "Raises", "Example", "Reference"]
# Functions with more arguments than this explain each of them.
MANY_ARGUMENTS = 3


NO_NAMESPACES = {"tree"}  # a module of which the reference shows some functions


@functools.cache
def paths() -> dict[str, str]:
    """Where a user finds each public function and class: on the front door, or in a namespace."""
    front = {name: name for name in offered(sj)}
    modules = {name for name in front if inspect.ismodule(getattr(sj, name))}
    inside = {
        name: f"{space}.{name}"
        for space in sorted(modules - NO_NAMESPACES)
        for name in offered(getattr(sj, space))
    }
    return {**inside, **{name: path for name, path in front.items() if name not in modules}}


def offered(module: types.ModuleType) -> Iterator[str]:
    """What a module defines, and what it imports to be found in it: `from x import f as f`."""
    body = ast.parse(Path(module.__file__).read_text()).body
    for node in [
        *body,
        *(line for block in body if isinstance(block, ast.If) for line in block.body),
    ]:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def public() -> dict[str, object]:
    return {name: operator.attrgetter(path)(sj) for name, path in paths().items()}


def test_no_function_has_the_name_of_its_module():
    for found in pkgutil.walk_packages(sj.__path__, "sparsejax."):
        module = importlib.import_module(found.name)
        parent, _, name = found.name.rpartition(".")
        assert getattr(sys.modules[parent], name) is module, f"{found.name} is hidden"


def test_a_public_name_stands_in_one_namespace():
    spaces = [name for name in offered(sj) if inspect.ismodule(getattr(sj, name))]
    named = [
        name for space in sorted({*spaces} - NO_NAMESPACES) for name in offered(getattr(sj, space))
    ]
    assert len(named) == len({*named})


def functions() -> dict[str, object]:
    """Public functions and the public methods that our public classes define."""
    found = {name: thing for name, thing in public().items() if inspect.isfunction(thing)}
    for name, thing in public().items():
        if inspect.isclass(thing):
            own = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
            found |= {f"{name}.{k}": v for k, v in own.items() if inspect.isfunction(v)}
    return found


def sections(docstring: str) -> list[str]:
    """The section headings of a docstring, in order."""
    return re.findall(rf"^({'|'.join(SECTIONS)}):", inspect.cleandoc(docstring), re.MULTILINE)


def documented_arguments(docstring: str) -> list[str]:
    body = re.search(r"^Args:\n((?: +.*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    lines = re.findall(r"^(\w[^:]*):", textwrap.dedent(body[1]), re.MULTILINE) if body else []
    return [name.lstrip("*") for line in lines for name in line.split(", ")]


@pytest.mark.parametrize("name", public())
def test_docstring_opens_with_one_sentence(name):
    docstring = public()[name].__doc__
    # A dataclass or NamedTuple without a docstring gets its signature as one.
    assert docstring and not docstring.startswith(f"{name}("), f"{name} has no docstring"
    first = docstring.strip().partition("\n\n")[0]
    assert first.rstrip()[-1] in ".;:`)", f"{name}: the first paragraph is no sentence: {first}"


@pytest.mark.parametrize("name", functions())
def test_docstring_explains_every_argument_by_its_name(name):
    function = functions()[name]
    assert function.__doc__, f"{name} has no docstring"
    arguments = [
        argument for argument in inspect.signature(function).parameters if argument != "self"
    ]
    documented = documented_arguments(function.__doc__)
    if "Args" in sections(function.__doc__):
        assert sorted(documented) == sorted(arguments), name
    elif "." not in name and name.removesuffix("_reference") not in functions().keys() - {name}:
        assert len(arguments) <= MANY_ARGUMENTS, f"{name} needs an Args section"


@pytest.mark.parametrize("name", public())
def test_sections_come_in_one_order(name):
    found = sections(public()[name].__doc__)
    assert found == sorted(found, key=SECTIONS.index)


def test_published_methods_cite_their_paper():
    for module in ["algorithms", "penalties"]:
        methods = {k: f for k, f in functions().items() if module in f.__module__ and "." not in k}
        assert methods
        uncited = [name for name, f in methods.items() if "Reference" not in sections(f.__doc__)]
        of_everyone = {"add_penalty", "one_shot", "quantized", "static_random"}
        assert not set(uncited) - of_everyone


REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_public_name_is_on_exactly_one_page_of_the_reference():
    shown = [
        path
        for page in REFERENCE.glob("*.md")
        for path in re.findall(r"^::: (sparsejax\.(?!tree\.)\S+)$", page.read_text(), re.MULTILINE)
    ]
    wanted = {f"sparsejax.{path}" for path in paths().values()}
    missing, unknown = wanted - set(shown), set(shown) - wanted
    assert not missing, f"give these a line in the fitting page of docs/reference/: {missing}"
    assert not unknown, f"docs/reference/ shows what is not public: {unknown}"
    assert len(shown) == len(wanted), "docs/reference/ shows a name on two pages"


class Linear:
    """A model in one line, for the examples."""

    def apply(self, params, x):
        return x @ params["body"]["kernel"] @ params["head"]["kernel"]


def example_world() -> dict[str, object]:
    """The names that an example may use without making them."""
    key = jax.random.key(0)
    weights = jnp.zeros((8, 4)).at[::4].set(1.0)
    params = {"body": {"kernel": weights}, "head": {"kernel": jnp.ones((4, 2))}}
    plan = sj.plan(params, {"head": None, "kernel": sj.Unstructured()}, sparsity=0.75)
    modules = {"sj": sj, "jax": jax, "jnp": jnp, "optax": optax}
    training = {"method": sj.one_shot(), "tx": optax.sgd(0.1), "plan": plan, "key": key}
    arrays = {"params": params, "grads": params, "weights": weights, "x": jnp.ones((3, 8))}
    return modules | training | arrays | {"model": Linear()}


class OutputChecker(doctest.OutputChecker):
    """An example that shows no output may print what it likes."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def test_examples_run():
    finder = doctest.DocTestFinder(recurse=False)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(OutputChecker(), optionflags=options)
    for name, thing in (public() | functions()).items():
        for example in finder.find(thing, name, globs=example_world()):
            runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0
