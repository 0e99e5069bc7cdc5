"""Several networks on one small machine, under deadlines: admission, assignment, simulation."""

from sparsejax.deploy.admission import Verdict as Verdict
from sparsejax.deploy.admission import admit as admit
from sparsejax.deploy.admission import fixed_priorities as fixed_priorities
from sparsejax.deploy.admission import jeffay as jeffay
from sparsejax.deploy.admission import preemptive_response_times as preemptive_response_times
from sparsejax.deploy.admission import rate_monotonic_bound as rate_monotonic_bound
from sparsejax.deploy.admission import response_times as response_times
from sparsejax.deploy.admission import utilization as utilization
from sparsejax.deploy.assignment import Assignment as Assignment
from sparsejax.deploy.assignment import assign as assign
from sparsejax.deploy.board import Ran as Ran
from sparsejax.deploy.board import Run as Run
from sparsejax.deploy.gantt import timeline as timeline
from sparsejax.deploy.live import run_live as run_live
from sparsejax.deploy.measuring import Times as Times
from sparsejax.deploy.measuring import measure_wcet as measure_wcet
from sparsejax.deploy.policies import Job as Job
from sparsejax.deploy.policies import boosted_edf as boosted_edf
from sparsejax.deploy.policies import deadline_monotonic as deadline_monotonic
from sparsejax.deploy.policies import edf as edf
from sparsejax.deploy.policies import fifo as fifo
from sparsejax.deploy.policies import rate_monotonic as rate_monotonic
from sparsejax.deploy.simulation import simulate as simulate
from sparsejax.deploy.tasks import Pipeline as Pipeline
from sparsejax.deploy.tasks import Task as Task
from sparsejax.deploy.tasks import decouple as decouple
