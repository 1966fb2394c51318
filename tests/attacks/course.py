"""A small real nbgrader course in a folder: made, released, submitted to and autograded with nbgrader's own commands."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

REPO = Path(__file__).parents[2]
ASSIGNMENT, NAME = "ps1", "work"
SOLUTIONS = {
    "add": "def add(a, b):\n    ### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION",
    "mul": "def mul(a, b):\n    ### BEGIN SOLUTION\n    return a * b\n    ### END SOLUTION",
}
TESTS = {
    "test-add": (2, "assert add(1, 2) == 3\n### BEGIN HIDDEN TESTS\nassert add(-1, 1) == 0, 'hidden_word: -1 + 1 should be 0'\n"
                    "### END HIDDEN TESTS"),
    "test-mul": (3, "assert mul(2, 3) == 6"),
}


def source():
    """The instructor's notebook: two functions with tests, a written question, and cells of no interest to nbgrader."""
    def marked(cell, **marks):
        cell.metadata["nbgrader"] = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False, **marks}
        return cell
    cells = [new_markdown_cell("# Numbers"), marked(new_code_cell("import math"), grade_id="imports", locked=True)]
    for (name, code), (test, (points, asserts)) in zip(SOLUTIONS.items(), TESTS.items(), strict=True):
        cells.append(marked(new_code_cell(code), grade_id=name, solution=True))
        cells.append(marked(new_code_cell(asserts), grade_id=test, grade=True, locked=True, points=points))
    answer = new_markdown_cell("### BEGIN SOLUTION\nbecause\n### END SOLUTION")
    cells.append(marked(answer, grade_id="why", grade=True, solution=True, points=4))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": spec})


class Course:
    def __init__(self, root, sandboxed=True, notebook=None):
        self.root, self.sandboxed = Path(root), sandboxed
        (self.root / "source" / ASSIGNMENT).mkdir(parents=True)
        nbformat.write(notebook or source(), self.root / "source" / ASSIGNMENT / f"{NAME}.ipynb")
        (self.root / "nbgrader_config.py").write_text(
            f"import sys\nsys.path.insert(0, {str(REPO)!r})\nc = get_config()\nc.CourseDirectory.course_id = 'demo'\n"
            f"c.CourseDirectory.root = {str(self.root)!r}\n"
            + ("from autograder.marks import nbgrader_plugin\nnbgrader_plugin.configure(c)\n"
               "c.SandboxExecute.limits = {'cell_seconds': 3, 'memory_mb': 300, 'pids': 40}\n" if sandboxed else ""))
        done = self.run("generate_assignment", ASSIGNMENT)
        assert done.returncode == 0, done.stderr
        self.released = json.loads((self.root / "release" / ASSIGNMENT / f"{NAME}.ipynb").read_text())

    def run(self, *arguments, preexec_fn=None, **env):
        """One nbgrader command, as a user types it: in a class's terminal ours comes first on the PATH."""
        command = [str(REPO / "bin" / "nbgrader")] if self.sandboxed else ["-m", "nbgrader"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOGRADER_", "TINYTORCH_"))}
        clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"               # nbgrader calls alembic by its name
        return subprocess.run([sys.executable, *command, *arguments], cwd=self.root, capture_output=True, text=True,
                              timeout=800, preexec_fn=preexec_fn, env={**clean, "JUPYTER_CONFIG_DIR": str(self.root / ".jupyter"), **env})

    def folder(self, student, step="submitted"):
        return self.root / step / student / ASSIGNMENT

    def submit(self, student, content):
        """Hand in a notebook: as a dict, or as the bytes of whatever it is."""
        folder = self.folder(student)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{NAME}.ipynb").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def solved(self, **solutions):
        """The released notebook with solutions: solved(add=code, mul=code); a right one where none is given."""
        notebook = copy.deepcopy(self.released)
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if name in SOLUTIONS:
                lines = SOLUTIONS[name].split("\n")
                cell["source"] = solutions.get(name, "\n".join(line for line in lines if "###" not in line))
        return notebook

    def cell(self, notebook, name):
        return next(cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == name)

    def scores(self, student):
        """Points of each test by its id, None where the gradebook has none."""
        from nbgrader.api import Gradebook
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}", "demo") as gradebook:
            grades = gradebook.find_submission_notebook(NAME, ASSIGNMENT, student).grades
            return {grade.name: grade.auto_score for grade in grades}

    def autograded(self, student):
        return json.loads((self.folder(student, "autograded") / f"{NAME}.ipynb").read_text())

    def outputs(self, student, name):
        return self.cell(self.autograded(student), name)["outputs"]
