"""Whole networks and layers against other CPU engines, which run the same weights side by side.

    python -m benchmarks.peers
    python -m benchmarks.peers --nets mobilenet_v1 --sparsities 0.9 --engines ours deepsparse
    python -m benchmarks.peers --threads 2 --batch 8
    python -m benchmarks.peers --show          what is in the file, nothing measured

Each engine is set up in an environment of its own under build/peers; one that cannot be had is in
the table with the reason. Weights are random, pruned by magnitude, with batch norm folded, and are
written once for all. An engine whose output is not JAX's is not timed. Ours is `sj.compile` called
from jax.jit with a jax.Array in and out; every engine has a process pinned to the same cores, and
times are taken inside it. The engines take turns: a time is the median over the rounds of the
median of a round's calls, and ratios are between times of one run.

Results of all engines go to benchmarks/results/peers.json, case by case, with a table beside it
and a picture for the documentation.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import bars, layers, nets, results, table
from benchmarks.peers.case import Case, write
from benchmarks.peers.environments import ENGINES, FOLDER, Engine
from benchmarks.peers.peak import peak
from benchmarks.peers.process import OWN, ROOT
from benchmarks.peers.rounds import measure, name_of

PICTURE = ROOT / "docs" / "peers.svg"
CHOICES: dict[str, Engine | str] = {name_of(engine): engine for engine in (*OWN, *ENGINES)}


def main() -> None:
    options = parse()
    if not options.show:
        for case in chosen(options):
            print(case, file=sys.stderr, flush=True)
            row = run(case, options)
            print(table.line(row), flush=True)
            layers.show(row)
            results.merge(options.json, row)
    found = results.read(options.json)
    if found["cases"]:
        table.show(found)
        options.json.with_suffix(".md").write_text(table.markdown(found))
        if options.json == results.FILE:
            PICTURE.write_text(table.picture(found["cases"]))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engines", nargs="+", choices=CHOICES, default=[*CHOICES])
    parser.add_argument("--nets", nargs="+", choices=nets.NETS, default=[*nets.NETS])
    parser.add_argument("--patterns", nargs="+", choices=nets.PATTERNS, default=[*nets.PATTERNS])
    parser.add_argument("--sparsities", nargs="+", type=float, help="default: those of the bars")
    parser.add_argument("--threads", type=int, default=1, help="cores, and threads an engine has")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of an engine in a round")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--json", type=Path, default=results.FILE, help="file for the results")
    options = parser.parse_args()
    if options.engines != [*CHOICES] and options.json == results.FILE:
        options.json = Path("build/peers/some_engines.json")
        options.json.unlink(missing_ok=True)
        print(f"Not all engines: results go to {options.json}.", file=sys.stderr)
    return options


def chosen(options: argparse.Namespace) -> Iterator[Case]:
    """The cases that the command line leaves, and those that it adds by --sparsities."""
    wanted = [case for case in bars.cases() if case[0] in options.nets]
    if options.sparsities is not None:
        wanted = [
            (net, pattern, sparsity)
            for net in options.nets
            for sparsity in options.sparsities
            for pattern in ((bars.UNSTRUCTURED, bars.BLOCK) if sparsity else (bars.DENSE,))
        ]
    for net, pattern, sparsity in wanted:
        if pattern in options.patterns:
            yield Case(net, pattern, sparsity, options.batch, options.threads)


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one case."""
    engines = [CHOICES[name] for name in options.engines]
    if nets.NETS[case.net]().shifted is None:
        engines = [engine for engine in engines if engine != "jax shifted"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="case-") as folder:
        files = write(case, Path(folder))
        times = measure(files, engines, rounds=options.rounds, seconds=options.seconds)
    return {
        **case._asdict(),
        "rounds": options.rounds,
        "effective gflop": files.effective_flops / 1e9,
        "useful gflop": files.useful_flops / 1e9,
        "peak": peak(),
        "engines": times,
    }


if __name__ == "__main__":
    main()
