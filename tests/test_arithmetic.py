"""Canonical results hold no arithmetic whose last bit depends on a library or a processor.

What these rules forbid is not always wrong; what they allow is always right.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [f"src/refashion/{room}" for room in ("base", "data", "runs", "studies", "evaluation")]
"""Rooms that compute results, besides `portable` and `training`."""

FILES = [file for room in [*ROOMS, "stages"] for file in sorted((ROOT / room).rglob("*.py"))]

LIBRARY = {
    *("cbrt", "cos", "cosh", "erf", "erfc", "exp", "exp2", "expm1", "float_power", "gamma"),
    *("hypot", "lgamma", "log", "log10", "log1p", "log2", "log_softmax", "pow", "power"),
    *("sigmoid", "sin", "sinh", "softmax", "tan", "tanh"),
}
"""Functions of the C library, of numpy or of torch that are not correctly rounded."""

UNORDERED = {
    *("average", "dot", "einsum", "inner", "matmul", "mean", "median", "norm", "std"),
    *("trapezoid", "var", "vdot"),
}
"""Sums whose rounding depends on vector width and threads."""

LIBRARIES = {"math", "np", "torch"}
PORTABLE = {"exact", "functions", "norms", "softmax", "streams"}
"""Modules whose functions of such names are the portable ones."""


def violations(code: str) -> Iterator[str]:
    """Forbidden operations of some code, each with its line."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.BinOp(op=ast.Pow(), left=ast.Constant(int()), right=ast.Constant(int())):
                continue
            case ast.BinOp(op=ast.Pow()) | ast.AugAssign(op=ast.Pow()):
                name = "pow"
            case ast.BinOp(op=ast.MatMult()) | ast.AugAssign(op=ast.MatMult()):
                name = "matmul"
            case ast.Call(func=ast.Name("pow")):
                name = "pow"
            case ast.Call(func=ast.Attribute(value=ast.Name(owner))) if owner in PORTABLE:
                continue
            case ast.Call(func=ast.Attribute(attr=name)):
                name = name.rstrip("_")
            case ast.Attribute(value=ast.Name(owner), attr=name) if owner in LIBRARIES:
                pass  # not called here, but handed on
            case _:
                continue
        if name in LIBRARY:
            yield f"line {node.lineno}: {name} is not correctly rounded: use portable.functions"
        elif name in UNORDERED:
            yield f"line {node.lineno}: {name} rounds sums on its way: use fsum or portable.exact"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nothing_depends_on_library_or_processor(file: Path) -> None:
    assert not list(violations(file.read_text(encoding="utf-8")))


FORBIDDEN = [
    *("x ** 2", "x **= 2", "2 ** x", "pow(x, 2)", "np.power(x, 2)", "map(math.log, x)", "x.exp_()"),
    *("a @ b", "x.std()", "np.mean(x)", "torch.linalg.norm(x)", "functions.exp(x).mean()"),
]


@pytest.mark.parametrize("code", FORBIDDEN)
def test_forbidden(code: str) -> None:
    assert list(violations(code))


@pytest.mark.parametrize("code", ["2**27", "x * x", "functions.log(x)", "math.sqrt(x)", "row.norm"])
def test_allowed(code: str) -> None:
    assert not list(violations(code))
