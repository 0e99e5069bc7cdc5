"""Plans as JSON: what is read back is what was written, or the error names what is not."""

import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sparsejax.plans.leaf import PlanLeaf

VERSION = 1
_NEEDS = "Plan.from_json needs what Plan.to_json wrote"


def to_json(leaves: Sequence[PlanLeaf]) -> str:
    """The leaves as JSON; patterns by class name and fields."""
    entries = []
    for leaf in leaves:
        pattern: Any = leaf.pattern
        own = {field.name: getattr(leaf, field.name) for field in fields(leaf)}
        own = {name: value for name, value in own.items() if name != "at" or value}
        entries.append(own | {"pattern": {type(pattern).__name__: asdict(pattern)}})
    return json.dumps({"version": VERSION, "leaves": entries}, indent=1)


def from_json(source: str, patterns: Sequence[type]) -> tuple[PlanLeaf, ...]:
    """The leaves that `to_json` wrote, of patterns of these classes.

    Raises:
      ValueError: it is no JSON, of another version, or has a field too few, too many or of a wrong
        type; whether a pattern fits its leaf is for the Plan to say.
    """
    document = _fields_of(_parsed(source), ("version", "leaves"), "the plan", {"version": VERSION})
    if document["version"] != VERSION or isinstance(document["version"], bool):
        raise ValueError(f"{_NEEDS}: version {VERSION}, got version {document['version']!r}.")
    if not isinstance(document["leaves"], list):
        raise ValueError(f"{_NEEDS}: a list of leaves, got {document['leaves']!r:.80}.")
    known = {pattern.__name__: pattern for pattern in patterns}
    return tuple(
        _leaf(entry, f"leaf {index}", known) for index, entry in enumerate(document["leaves"])
    )


def _parsed(source: str) -> Any:
    def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"a name is there twice in {sorted(names)}")
        return dict(pairs)

    try:
        return json.loads(source, object_pairs_hook=only_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_NEEDS}, and this is not: {error}.") from None


def _leaf(entry: Any, where: str, known: dict[str, type]) -> PlanLeaf:
    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
        where = entry["path"]
    hints = typing.get_type_hints(PlanLeaf)
    found = _fields_of(entry, [field.name for field in fields(PlanLeaf)], where, {"at": []})
    values = {
        name: _typed(found[name], hints[name], f"{where}: {name}")
        for name in found
        if name != "pattern"
    }
    return PlanLeaf(**values, pattern=_pattern(found["pattern"], where, known))


def _pattern(found: Any, where: str, known: dict[str, type]) -> Any:
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError(f"{_NEEDS}: {where} needs one pattern by its name, got {found!r:.80}.")
    ((name, options),) = found.items()
    if name not in known:
        raise ValueError(
            f"{where}: no pattern class {name}, only {', '.join(known)}; "
            "pass it in from_json(..., patterns=...)."
        )
    hints = typing.get_type_hints(known[name])
    own: Any = known[name]
    where = f"{where}: {name}"
    options = _fields_of(options, [field.name for field in fields(own)], where)
    typed = {key: _typed(options[key], hints[key], f"{where}.{key}") for key in options}
    try:
        return own(**typed)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fields_of(
    found: Any, names: Sequence[str], where: str, defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The object, which has exactly these names."""
    if not isinstance(found, dict):
        raise ValueError(f"{_NEEDS}: {where} must be an object, got {found!r:.80}.")
    found = (defaults or {}) | found
    missing, foreign = set(names) - set(found), set(found) - set(names)
    if missing or foreign:
        raise ValueError(
            f"{_NEEDS}: {where} must have {', '.join(names)}; "
            f"missing: {sorted(missing)}, unknown: {sorted(foreign)}."
        )
    return found


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value as its annotation has it: JSON knows neither tuples nor whole floats."""
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        items = typing.get_args(hint)
        items = items[:1] * len(value) if items[-1] is ... else items
        if len(items) == len(value):
            pairs = zip(value, items, strict=True)
            return tuple(_typed(each, item, where) for each, item in pairs)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else math.inf
    finite = not isinstance(value, float) or math.isfinite(value)
    if not (finite and _is_of(value, hint)):
        name = getattr(hint, "__name__", str(hint))
        raise ValueError(f"{_NEEDS}: {where} must be of type {name}, got {value!r:.80}.")
    return value


def _is_of(value: Any, hint: Any) -> bool:
    """Whether the value has the type; annotations that JSON has no type for take everything."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_is_of(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return False
    return type(value) is hint if hint in (int, float, bool, str, types.NoneType) else True
