"""Plans: which leaf is sparse, in which pattern and by how much."""

from sparsejax.plans.leaf import PlanLeaf as PlanLeaf
