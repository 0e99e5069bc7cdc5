"""Activation maps made sparse, counted and coded: `sj.activations`."""

from sparsejax.activations.account import DensityReport as DensityReport
from sparsejax.activations.account import MapDensity as MapDensity
from sparsejax.activations.account import density as density
from sparsejax.activations.coders import Coder as Coder
from sparsejax.activations.coders import bits_per_value as bits_per_value
from sparsejax.activations.coders import entropy as entropy
from sparsejax.activations.coders import exponential_golomb as exponential_golomb
from sparsejax.activations.coders import golomb as golomb
from sparsejax.activations.coders import huffman as huffman
from sparsejax.activations.coders import range_coding as range_coding
from sparsejax.activations.coders import sparse_exponential_golomb as sparse_exponential_golomb
from sparsejax.activations.coders import zero_value as zero_value
from sparsejax.activations.exponential import best_k as best_k
from sparsejax.activations.exponential import code_lengths as code_lengths
from sparsejax.activations.histograms import Histogram as Histogram
from sparsejax.activations.histograms import histogram as histogram
from sparsejax.activations.levels import Quantized as Quantized
from sparsejax.activations.levels import dequantize as dequantize
from sparsejax.activations.levels import quantize as quantize
from sparsejax.activations.maps import tap as tap
from sparsejax.activations.maps import with_maps as with_maps
from sparsejax.activations.penalty import l1 as l1
from sparsejax.activations.penalty import sow as sow
from sparsejax.activations.stored import decode as decode
from sparsejax.activations.stored import encode as encode
