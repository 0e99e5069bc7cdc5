"""Several networks on one small machine, under deadlines: admission, assignment, simulation."""

from sparsejax.deploy.admission import Verdict as Verdict
from sparsejax.deploy.admission import admit as admit
from sparsejax.deploy.admission import fixed_priorities as fixed_priorities
from sparsejax.deploy.admission import jeffay as jeffay
from sparsejax.deploy.admission import preemptive_response_times as preemptive_response_times
from sparsejax.deploy.admission import rate_monotonic_bound as rate_monotonic_bound
from sparsejax.deploy.admission import response_times as response_times
from sparsejax.deploy.admission import utilization as utilization
from sparsejax.deploy.tasks import Pipeline as Pipeline
from sparsejax.deploy.tasks import Task as Task
from sparsejax.deploy.tasks import decouple as decouple
