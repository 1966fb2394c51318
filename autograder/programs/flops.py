"""Counts the floating-point operations of the framework by rewriting it while it is imported.

Every operator and every call in `tinytorch` that meets NumPy arrays reports their sizes. Counted are: one operation per number
of an elementwise result (more for exp, log and the like), one per number of a reduction's input, two per multiply-add of a matrix
product. What NumPy does inside of its own functions is not seen, so it is an estimate, and the same one for the same code.
"""

import ast
import importlib.abc
import importlib.machinery
import sys
from collections import Counter

import numpy as np

COSTLY = {"exp": 8, "log": 8, "sqrt": 4, "tanh": 10, "sin": 8, "cos": 8, "power": 10, "erf": 10, "log1p": 8, "expm1": 8, "divide": 1}
REDUCTIONS = {"sum", "mean", "max", "min", "prod", "var", "std", "argmax", "argmin", "cumsum", "amax", "amin"}
PASSES = {"var": 4, "std": 4}           # over the input
OPERATORS = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.Pow: "power", ast.MatMult: "matmul",
             ast.FloorDiv: "floor_divide", ast.Mod: "remainder"}


class Counted:
    """Operations by name, and how often each was done, while `on`."""

    def __init__(self):
        self.on = False
        self.flops: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def note(self, name, flops):
        if self.on and flops:
            self.flops[name] += int(flops)
            self.calls[name] += 1

    def operator(self, name, left, right, result):
        """An operator's result, handed on; called with what stood on its two sides."""
        if self.on and isinstance(result, np.ndarray | np.generic) and result.dtype.kind in "fc":
            self.note(name, product(left, right, result) if name == "matmul" else np.size(result) * COSTLY.get(name, 1))
        return result

    def call(self, function, *args, **kwargs):
        result = function(*args, **kwargs)
        if self.on:
            self.function(function, args, kwargs, result)
        return result

    def function(self, function, args, kwargs, result):
        name, owner = getattr(function, "__name__", ""), getattr(function, "__self__", None)
        size = np.size(result) if isinstance(result, np.ndarray | np.generic) else 0
        if isinstance(function, np.ufunc):
            self.note(name, product(args[0], args[1], result) if name == "matmul" else size * COSTLY.get(name, 1))
        elif isinstance(owner, np.ufunc):
            self.note(f"{owner.__name__}.{name}", np.size(args[0]) if args else size)
        elif isinstance(owner, np.ndarray):
            if name in REDUCTIONS and owner.dtype.kind in "fc":
                self.note(name, owner.size * PASSES.get(name, 1))
            elif name == "dot":
                self.note("matmul", product(owner, args[0], result))
        elif getattr(function, "__module__", "") == "numpy" and args:
            if name in REDUCTIONS:
                self.note(name, np.size(args[0]) * PASSES.get(name, 1))
            elif name in ("dot", "inner", "tensordot", "vdot"):
                self.note("matmul", contracted(args[0], args[1], result))
            elif name == "einsum" and isinstance(args[0], str):
                self.note("einsum", einsum(args[0], args[1:]))
            elif name in ("maximum", "minimum", "where", "clip", "sign"):
                self.note(name, size)


def product(left, right, result):
    """Two per multiply-add: each number of the result is a sum over the inner size."""
    inner = np.shape(left)[-1] if np.ndim(left) else 1
    return 2 * np.size(result) * inner


def contracted(left, right, result):
    """The same for any contraction: sizes of both sides and of the result give the inner size."""
    sizes = np.size(left) * np.size(right)
    return 2 * np.size(result) * round((sizes / max(1, np.size(result))) ** 0.5)


def einsum(subscripts, arrays):
    inputs = subscripts.replace(" ", "").split("->")[0].split(",")
    if "..." in subscripts:
        return 0
    sizes = {letter: size for letters, array in zip(inputs, arrays, strict=False)
             for letter, size in zip(letters, np.shape(array), strict=False)}
    total = 1
    for size in sizes.values():
        total *= size
    return total * (2 if len(inputs) > 1 else 1)


class Rewrite(ast.NodeTransformer):
    """`a + b` becomes `__flops__.operator("add", a, b, a + b)` with a and b evaluated once; `f(x)` becomes `__flops__.call(f, x)`."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        name = OPERATORS.get(type(node.op))
        if name is None:
            return node
        left, right = ast.Name("__left", ast.Load()), ast.Name("__right", ast.Load())
        inner = ast.Lambda(
            ast.arguments(posonlyargs=[], args=[ast.arg("__left"), ast.arg("__right")], kwonlyargs=[], kw_defaults=[], defaults=[]),
            self._note(name, left, right, ast.BinOp(left, node.op, right)))
        return ast.copy_location(ast.Call(inner, [node.left, node.right], []), node)

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        name = OPERATORS.get(type(node.op))
        if name is None or not isinstance(node.target, ast.Name):
            return node
        target = ast.Name(node.target.id, ast.Load())
        after = ast.Expr(self._note(name, target, ast.Constant(0), target))
        return [node, ast.copy_location(after, node)]

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("super", "locals", "globals", "vars", "dir", "eval", "exec"):
            return node                                     # these look at the frame that calls them
        return ast.copy_location(ast.Call(_attribute("call"), [node.func, *node.args], node.keywords), node)

    def _note(self, name, left, right, result):
        return ast.Call(_attribute("operator"), [ast.Constant(name), left, right, result], [])


def _attribute(name):
    return ast.Attribute(ast.Name("__flops__", ast.Load()), name, ast.Load())


class Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name, path, counted):
        super().__init__(name, path)
        self.counted = counted

    def get_code(self, fullname):
        """Always of the source, never the compiled file of the plain one."""
        tree = ast.fix_missing_locations(Rewrite().visit(ast.parse(self.get_data(self.path), self.path)))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module):
        module.__flops__ = self.counted
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds what the ordinary finder finds, for `tinytorch` only, and loads it rewritten."""

    def __init__(self, counted):
        self.counted = counted

    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] != "tinytorch":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path, self.counted)
        return spec


def install():
    """From here on `tinytorch` is imported with counters; returns them."""
    counted = Counted()
    sys.meta_path.insert(0, Finder(counted))
    return counted
