"""Activation maps made sparse, counted and coded: `sj.activations`."""

from sparsejax.activations.exponential import best_k as best_k
from sparsejax.activations.exponential import code_lengths as code_lengths
from sparsejax.activations.histograms import Histogram as Histogram
from sparsejax.activations.histograms import histogram as histogram
from sparsejax.activations.stored import decode as decode
from sparsejax.activations.stored import encode as encode
