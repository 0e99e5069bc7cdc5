"""Any inference function as one that runs on packed sparse weights, in one custom call a region."""

from sparsejax.compile.compiled import CompiledFunction as CompiledFunction
from sparsejax.compile.compiled import compile as compile
from sparsejax.compile.report import CompileReport as CompileReport
from sparsejax.compile.report import LayerReport as LayerReport
