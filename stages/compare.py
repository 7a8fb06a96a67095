"""Compare all variants: ``python stages compare``."""

from rich.console import Console

from refashion.base.workspace import Workspace
from refashion.evaluation import comparison
from refashion.runs import listing
from refashion.runs.run import in_folder


def main() -> None:
    """Leave the few metrics and the plots that lay all variants over each other."""
    workspace = Workspace.here()
    names = [variant.title for variant in listing.variants(workspace)]
    comparison.refuse_stale(workspace.evaluation, names)
    evaluated = [in_folder(workspace.evaluation / name, name) for name in names]
    result = comparison.write(evaluated, workspace.reports)
    Console().print(*comparison.tables(result))
