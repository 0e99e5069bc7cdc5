"""Published results and the demo, reproduced with sparsejax."""

from importlib.util import find_spec as _find_spec

_needed = ("grain", "jax", "matplotlib", "PIL", "tyro")
_missing = [name for name in _needed if _find_spec(name) is None]
if _missing:
    raise ImportError(
        "The experiments need the extra `experiments` of sparsejax, but this Python has no "
        f"{', '.join(_missing)}: run `make setup` and use .venv/bin/python, "
        "or `pip install 'sparsejax[experiments]'` where sparsejax is installed."
    )
