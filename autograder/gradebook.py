"""nbgrader's gradebook opened once for a whole class: one session, one commit per submission, what never changes asked once.

nbgrader's converter and preprocessors open it anew for every step and commit after every cell, and find each cell of the
assignment by a query. While `shared` holds, they all get the one that is open.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from sqlalchemy.orm import scoped_session, sessionmaker

USERS = ("nbgrader.converters.autograde", "nbgrader.preprocessors.overwritekernelspec", "nbgrader.preprocessors.overwritecells",
         "nbgrader.preprocessors.saveautogrades", "nbgrader.preprocessors.latesubmissions", "autograder.nbgrader_plugin")


class Shared(Gradebook):
    """Closed and committed by who opened it alone. An assignment must not change meanwhile."""

    def __init__(self, url: str, course_id: str) -> None:
        super().__init__(url, course_id)
        super().close()                                 # of nbgrader's own session a commit forgets all that was read
        self.db: Any = scoped_session(sessionmaker(autoflush=True, bind=self.engine, future=True, expire_on_commit=False))
        self.known: dict[tuple, Any] = {}
        self.really_commit = self.db.commit
        self.db.commit = lambda: None                   # type: ignore[method-assign]  # questions flush by themselves

    def __exit__(self, *_: object) -> None:
        """It goes on."""

    def close(self) -> None:
        """Whoever used it may say so; `shared` closes it."""

    def _once(self, find: Callable[..., Any], *names: str) -> Any:
        key = find.__name__, *names
        if key not in self.known:
            self.known[key] = find(*names)
        return self.known[key]

    def find_assignment(self, name: str) -> Any:
        return self._once(super().find_assignment, name)

    def find_notebook(self, name: str, assignment: str) -> Any:
        return self._once(super().find_notebook, name, assignment)

    def find_source_cell(self, name: str, notebook: str, assignment: str) -> Any:
        return self._cell("source_cells", name, notebook, assignment)

    def find_graded_cell(self, name: str, notebook: str, assignment: str) -> Any:
        return self._cell("grade_cells", name, notebook, assignment)

    def _cell(self, kind: str, name: str, notebook: str, assignment: str) -> Any:
        found = self.find_notebook(notebook, assignment)
        key = kind, notebook, assignment
        if key not in self.known:
            listed = [*getattr(found, kind), *(found.task_cells if kind == "grade_cells" else [])]
            self.known[key] = {cell.name: cell for cell in listed}
        if name not in self.known[key]:
            raise MissingEntry(f"No such cell: {assignment}/{notebook}/{name}")
        return self.known[key][name]

    def find_grade(self, grade_cell: str, notebook: str, assignment: str, student: str) -> Any:
        return self._of_student("grades", grade_cell, notebook, assignment, student)

    def find_comment(self, solution_cell: str, notebook: str, assignment: str, student: str) -> Any:
        return self._of_student("comments", solution_cell, notebook, assignment, student)

    def _of_student(self, kind: str, name: str, notebook: str, assignment: str, student: str) -> Any:
        key = "student", kind, notebook, assignment, student
        if key not in self.known:
            book = self.find_notebook(notebook, assignment)
            names = {cell.id: cell.name for cell in [*book.grade_cells, *book.solution_cells, *book.task_cells]}
            submitted = self._submitted(notebook, assignment, student)
            self.known[key] = {names.get(one.cell_id): one for one in getattr(submitted, kind)}
        if name not in self.known[key]:
            raise MissingEntry(f"No such entry: {assignment}/{notebook}/{name} for {student}")
        return self.known[key][name]

    def find_submission_notebook(self, notebook: str, assignment: str, student: str) -> Any:
        """Its score is a sum that the database makes, so for who is late, and may get a penalty, it is asked for anew."""
        found = self._submitted(notebook, assignment, student)
        if found.assignment.total_seconds_late > 0:
            self.db.flush()
            self.db.expire(found)
        return found

    def _submitted(self, notebook: str, assignment: str, student: str) -> Any:
        key = "student", "notebook", notebook, assignment, student
        if key not in self.known:
            self.known[key] = super().find_submission_notebook(notebook, assignment, student)
        return self.known[key]

    def submission_done(self) -> None:
        """Write down all of one submission at once, and forget it."""
        self.really_commit()
        for key in [key for key in self.known if key[0] == "student"]:
            del self.known[key]


@contextlib.contextmanager
def shared(url: str, course_id: str) -> Iterator[Shared]:
    """Everything of nbgrader that autogrades uses the one gradebook that this yields."""
    book = Shared(url, course_id)
    modules = [importlib.import_module(name) for name in USERS]

    def the_one(asked: str, *arguments: Any, **more: Any) -> Gradebook:
        return book if asked == url else Gradebook(asked, *arguments, **more)

    try:
        for module in modules:
            vars(module)["Gradebook"] = the_one
        yield book
    finally:
        for module in modules:
            vars(module)["Gradebook"] = Gradebook
        book.db.rollback()
        super(Shared, book).close()
