"""Federated training: personal layers, sparse messages, every byte counted."""

from sparsejax.federated.averages import weighted_average as weighted_average
from sparsejax.federated.flower import flower_client as flower_client
from sparsejax.federated.flower import flower_strategy as flower_strategy
from sparsejax.federated.local import LocalTraining as LocalTraining
from sparsejax.federated.local import local_sgd as local_sgd
from sparsejax.federated.rounds import Federated as Federated
from sparsejax.federated.rounds import FederatedState as FederatedState
from sparsejax.federated.rounds import RoundReport as RoundReport
from sparsejax.federated.rounds import fedper as fedper
from sparsejax.federated.samples import Clients as Clients
from sparsejax.federated.samples import class_partition as class_partition
from sparsejax.federated.samples import stack_clients as stack_clients
from sparsejax.federated.updates import BaseUpdate as BaseUpdate
from sparsejax.federated.updates import masked_update as masked_update
from sparsejax.federated.updates import top_k_update as top_k_update
from sparsejax.federated.updates import whole_update as whole_update
from sparsejax.federated.variables import Variables as Variables
