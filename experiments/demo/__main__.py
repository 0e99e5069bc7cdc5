"""`python -m experiments.demo`; see experiments/demo/run.py."""

import sys

import tyro

from experiments.demo.run import main
from experiments.demo.settings import Demo

try:
    main(tyro.cli(Demo))
except KeyboardInterrupt:
    sys.exit(130)
