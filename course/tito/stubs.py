"""What is not written yet: seen in the message of a failed test, and in the text of an exported file."""

import ast
import re

from course.build.nbgrader_settings import CODE_STUB

STUB = CODE_STUB.partition('"')[2].rpartition('"')[0]         # "not written yet: replace ..."
RAISED = re.compile(r"(\S+\.py, line \d+: )?NotImplementedError\b")


def waits(message: str) -> bool:
    """Whether a failure only says that code is still missing, even where a test has caught the exception and quotes it."""
    return bool(RAISED.match(message)) or STUB in message or message.endswith("above is not written yet")


def functions(text: str) -> list[str]:
    """Functions and methods that still raise what stands in the place of a solution."""
    found = []
    for node in ast.parse(text).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found += [prefix + part.name for part in inner if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and _is_stub(part)]
    return found


def _is_stub(function: ast.AST) -> bool:
    return any(isinstance(node, ast.Raise) and STUB in ast.unparse(node) for node in ast.walk(function))
