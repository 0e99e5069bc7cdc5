"""Searches: of widths, bits, patterns and architectures under a budget, resumed after a kill."""

from sparsejax.search.fronts import front as front
from sparsejax.search.fronts import trade_off as trade_off
from sparsejax.search.loop import best as best
from sparsejax.search.loop import optimize as optimize
from sparsejax.search.samplers import Sampler as Sampler
from sparsejax.search.samplers import Trial as Trial
from sparsejax.search.samplers import random_search as random_search
from sparsejax.search.samplers import tpe as tpe
from sparsejax.search.space import Interval as Interval
