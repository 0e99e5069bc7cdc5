"""The door of a plan's rules: what a rule must be, and which paths there are."""

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsejax.doors import named
from sparsejax.patterns import Pattern
from sparsejax.patterns.stacked import Stacked

MAX_LISTED = 8


def patterns_of(rule: Any) -> list[Any]:
    """The patterns that a rule leaves to choose from, with their sparsities where it gives them."""
    if rule is None:
        return []
    return list(rule) if isinstance(rule, list) else [rule]


def check_rules(rules: Any, *, choices: bool = False) -> None:
    """Raise unless these are regular expressions, each with a pattern, a pair or None.

    With `choices` a list of patterns will do, too.
    """
    example = 'pass {r".*kernel": sj.Unstructured()}'
    if not isinstance(rules, Mapping):
        raise TypeError(
            "plan needs rules as a dict of regular expressions and patterns, "
            f"got {named(rules)}; {example}."
        )
    for regex, rule in rules.items():
        check_regex("plan", regex, example)
        for one in rule if choices and isinstance(rule, list) and rule else [rule]:
            _check_rule(regex, one)


def check_regex(asker: str, regex: Any, example: str) -> None:
    """Raise unless it is a regular expression, which the example shows how to write."""
    if not isinstance(regex, str):
        raise TypeError(
            f"{asker} needs regular expressions as rules, got {named(regex)}; {example}."
        )
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(
            f"{asker} needs regular expressions as rules, got {regex!r}: {error}; "
            f"if it is a glob, write {from_glob(regex)!r}."
        ) from error


def from_glob(glob: str) -> str:
    """The regular expression that a glob stands for; searched, it needs no anchors."""
    return re.escape(glob).replace(r"\*\*/", ".*").replace(r"\*", ".*").replace(r"\?", ".")


def _check_rule(regex: str, rule: Any) -> None:
    pattern = rule[0] if isinstance(rule, tuple) and len(rule) == 2 else rule
    pattern = pattern.pattern if isinstance(pattern, Stacked) else pattern
    if isinstance(pattern, type) and hasattr(pattern, "max_sparsity"):
        todo = f"call it: {pattern.__name__}(...)"
    elif isinstance(pattern, list):
        todo = "a list of patterns to choose from needs budget="
    elif isinstance(pattern, int | float):
        todo = f"pass (sj.Unstructured(), {pattern:g})"
    else:
        todo = "pass sj.Unstructured(), say"
    whole = rule is None
    if not whole and (isinstance(pattern, type) or not isinstance(pattern, Pattern)):
        raise TypeError(
            f"plan needs a pattern, (pattern, sparsity) or None for {regex!r}, "
            f"got {named(pattern)}; {todo}."
        )
    if isinstance(rule, tuple) and not isinstance(rule[1], int | float):
        raise TypeError(
            f"plan needs (pattern, sparsity) for {regex!r}, got {named(rule[1])} as the sparsity; "
            "pass a number in [0, 1)."
        )


@contextlib.contextmanager
def claimed_by(regex: str) -> Iterator[None]:
    """Adds the rule to an error about a leaf that it claims."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{str(error).rstrip('.')}; the rule {regex!r} claims it.") from None


def hint(regex: str, paths: Sequence[str]) -> str:
    """What may have been meant by a rule that matches no path."""
    glob = from_glob(regex)
    meant = [path for path in paths if re.search(glob, path)]
    if meant:
        return f"as a glob it would be {glob!r}, which claims {meant[0]}"
    close = nearest(regex, paths)
    return f"nearest paths: {', '.join(close)}" if close else listed(paths)


def listed(paths: Sequence[str]) -> str:
    """The first of the paths there are."""
    if not paths:
        return "there are no arrays in the params"
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return f"the paths are {', '.join(paths[:MAX_LISTED])}{more}"


def nearest(regex: str, paths: Sequence[str]) -> list[str]:
    """The paths that look most like the rule, as a whole or in one of their names."""
    wanted = re.sub(r"\\.|[^\w/]", "", regex).lower()

    def likeness(path: str) -> float:
        candidates = [path, *path.split("/")]
        return max(difflib.SequenceMatcher(None, wanted, c.lower()).ratio() for c in candidates)

    close = [path for path in sorted(paths, key=likeness, reverse=True) if likeness(path) >= 0.5]
    return close[:3]
