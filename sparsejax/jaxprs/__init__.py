"""The one reader of jaxprs: which products the weights take part in, and how they come there."""

from sparsejax.jaxprs.calls import body_of as body_of
from sparsejax.jaxprs.kinds import ELEMENTWISE as ELEMENTWISE
from sparsejax.jaxprs.places import Labels as Labels
from sparsejax.jaxprs.places import Site as Site
from sparsejax.jaxprs.products import as_matrices as as_matrices
from sparsejax.jaxprs.products import multiply_adds_of as multiply_adds_of
from sparsejax.jaxprs.products import three_axes as three_axes
from sparsejax.jaxprs.sites import Sites as Sites
from sparsejax.jaxprs.sites import find_sites as find_sites
from sparsejax.jaxprs.taps import run_tapped as run_tapped
