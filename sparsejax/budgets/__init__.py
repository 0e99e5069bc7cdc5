"""Budgets for `sj.plan(..., budget=)`: in kept weights, bytes, multiply-adds or milliseconds."""

from sparsejax.budgets.budget import Budget as Budget
from sparsejax.budgets.costs import multiply_adds_left as multiply_adds_left
from sparsejax.budgets.costs import parameters as parameters
from sparsejax.budgets.costs import stored_bytes as stored_bytes
from sparsejax.budgets.latency import LatencyTable as LatencyTable
from sparsejax.budgets.latency import milliseconds as milliseconds
from sparsejax.budgets.losses import energy_lost as energy_lost
from sparsejax.budgets.losses import output_error as output_error
