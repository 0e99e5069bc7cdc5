"""Accounts of a sparse network: how sparse it is, whether it is what was planned, what it needs."""

from sparsejax.reports.check import Check as Check
from sparsejax.reports.check import Finding as Finding
from sparsejax.reports.memory import TrainingMemory as TrainingMemory
from sparsejax.reports.memory import training_memory as training_memory
from sparsejax.reports.plots import plot as plot
from sparsejax.reports.report import LeafReport as LeafReport
from sparsejax.reports.report import Report as Report
