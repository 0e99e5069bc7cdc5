"""Studies of what a training found: lottery tickets, and examples that are never forgotten."""

from sparsejax.studies.forgetting import ForgettingCounts as ForgettingCounts
from sparsejax.studies.forgetting import KeptExamples as KeptExamples
from sparsejax.studies.forgetting import count_forgetting as count_forgetting
from sparsejax.studies.forgetting import most_forgotten as most_forgotten
from sparsejax.studies.forgetting import no_forgetting as no_forgetting
from sparsejax.studies.tickets import Jackpot as Jackpot
from sparsejax.studies.tickets import Ticket as Ticket
from sparsejax.studies.tickets import jackpot as jackpot
from sparsejax.studies.tickets import lottery_ticket as lottery_ticket
from sparsejax.studies.tickets import magnitude_overlap as magnitude_overlap
