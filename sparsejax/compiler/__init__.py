"""Any inference function as one that runs on packed sparse weights, in one custom call a region."""

from sparsejax.compiler.compiled import CompiledFunction as CompiledFunction
from sparsejax.compiler.entry import compile as compile
from sparsejax.compiler.files.contents import FileReport as FileReport
from sparsejax.compiler.files.contents import StoredLayer as StoredLayer
from sparsejax.compiler.files.read import LoadedFunction as LoadedFunction
from sparsejax.compiler.reports.report import CompileReport as CompileReport
from sparsejax.compiler.reports.report import LayerReport as LayerReport
