"""nbgrader's gradebook opened once for a whole class: one session, one commit per submission, what never changes asked once.

nbgrader's converter and preprocessors open it anew for every step and commit after every cell, and find each cell of the
assignment by a query. While `shared` holds, they all get the one that is open. Of a submission the marks and comments are plain
rows, read, made and changed by one statement for all of them: as objects of the ORM they cost more than all else together.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from nbgrader.api import Comment, Grade, Gradebook, InvalidEntry, MissingEntry, SubmittedAssignment, SubmittedNotebook, new_uuid
from nbgrader.utils import parse_utc
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import scoped_session, sessionmaker

USERS = ("nbgrader.converters.autograde", "nbgrader.preprocessors.overwritekernelspec", "nbgrader.preprocessors.overwritecells",
         "nbgrader.preprocessors.saveautogrades", "nbgrader.preprocessors.latesubmissions", "autograder.marks.nbgrader_plugin")
ROWS: dict[str, Any] = {"grades": Grade.__table__, "comments": Comment.__table__}       # of a submitted notebook, each of a cell


class Shared(Gradebook):
    """Closed and committed by who opened it alone. An assignment must not change meanwhile."""

    def __init__(self, url: str, course_id: str) -> None:
        super().__init__(url, course_id)
        super().close()                                 # of nbgrader's own session a commit forgets all that was read
        self.db: Any = scoped_session(sessionmaker(autoflush=True, bind=self.engine, future=True, expire_on_commit=False))
        self.known: dict[tuple, Any] = {}
        self.commit = self.db.commit
        self.db.commit = lambda: None                   # type: ignore[method-assign]  # questions flush by themselves

    def __exit__(self, *_: object) -> None:
        """It goes on."""

    def close(self) -> None:
        """Whoever used it may say so; `shared` closes it."""

    def _once(self, find: Callable[..., Any], *names: str, prefix: tuple[str, ...] = ()) -> Any:
        key = *(prefix or (find.__name__,)), *names
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
        return self._row("grades", grade_cell, notebook, assignment, student)

    def find_comment(self, solution_cell: str, notebook: str, assignment: str, student: str) -> Any:
        return self._row("comments", solution_cell, notebook, assignment, student)

    def _row(self, kind: str, name: str, notebook: str, assignment: str, student: str) -> Any:
        key = "student", kind, notebook, assignment, student
        if key not in self.known:
            table, submitted = ROWS[kind], self._submitted(notebook, assignment, student)
            self.db.flush()
            found = self.db.execute(select(table).where(table.c.notebook_id == submitted.id)).mappings()
            self._keep_rows(key, [dict(row) for row in found])
        if name not in self.known[key]:
            raise MissingEntry(f"No such entry: {assignment}/{notebook}/{name} for {student}")
        return self.known[key][name]

    def _keep_rows(self, key: tuple, rows: list[dict[str, Any]]) -> None:
        """Under the names of their cells; `written` is what the database has of each."""
        names = self._once(self._names, *key[2:4])
        self.known[key] = {names.get(row["cell_id"]): SimpleNamespace(**row, written=row) for row in rows}

    def _names(self, notebook: str, assignment: str) -> dict[str, str]:
        book = self.find_notebook(notebook, assignment)
        return {cell.id: cell.name for cell in [*book.grade_cells, *book.solution_cells, *book.task_cells]}

    def _write_rows(self) -> None:
        """What has been changed in the rows of marks and comments; nobody else's columns."""
        for key, rows in self.known.items():
            changes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
            for row in rows.values() if key[0] == "student" and key[1] in ROWS else ():
                changed = {column: getattr(row, column) for column, was in row.written.items() if getattr(row, column) != was}
                if changed:
                    changes.setdefault(tuple(changed), []).append({**changed, "row": row.id})
                    row.written = {**row.written, **changed}
            for columns, values in changes.items():
                of_row = update(ROWS[key[1]]).where(ROWS[key[1]].c.id == bindparam("row"))
                self.db.execute(of_row.values({name: bindparam(name) for name in columns}), values)

    def find_student(self, student: str) -> Any:
        return self._once(super().find_student, student, prefix=("student", "person"))

    def find_submission(self, assignment: str, student: str) -> Any:
        key = "student", "submission", assignment, student
        if key not in self.known:
            wanted = select(SubmittedAssignment).filter_by(assignment_id=self.find_assignment(assignment).id, student_id=student)
            with self.db.no_autoflush:                  # a student who is not written down yet has no submission
                if (found := self.db.scalars(wanted).one_or_none()) is None:
                    raise MissingEntry(f"No such submission: {assignment} for {student}")
            self.known[key] = found
        return self.known[key]

    def add_submission(self, assignment: str, student: str, **more: Any) -> Any:
        """nbgrader's: the submission with empty marks and comments for all cells of the assignment."""
        if "timestamp" in more:
            more["timestamp"] = parse_utc(more["timestamp"])
        found = self.find_assignment(assignment)
        # By the ids and not by the objects, whose collections would keep every submission of the class.
        submission = SubmittedAssignment(id=new_uuid(), assignment_id=found.id, student_id=self.find_student(student).id, **more)
        submitted = {book.name: SubmittedNotebook(id=new_uuid(), notebook_id=book.id, assignment_id=submission.id)
                     for book in found.notebooks}
        try:
            self.db.add_all([submission, *submitted.values()])
            self.db.flush()
            for book in found.notebooks:
                empty: dict[str, tuple[dict[str, Any], list[Any]]] = {
                    "grades": ({"auto_score": None, "manual_score": None, "extra_credit": None, "needs_manual_grade": True},
                               [*book.grade_cells, *book.task_cells]),
                    "comments": ({"auto_comment": None, "manual_comment": None}, [*book.solution_cells, *book.task_cells])}
                for kind, (values, cells) in empty.items():
                    rows = [{"id": new_uuid(), "notebook_id": submitted[book.name].id, "cell_id": cell.id, **values} for cell in cells]
                    if rows:
                        self.db.execute(insert(ROWS[kind]), rows)
                    self._keep_rows(("student", kind, book.name, assignment, student), rows)
        except (IntegrityError, StatementError) as error:
            self.db.rollback()
            raise InvalidEntry(*error.args) from error
        self.known["student", "submission", assignment, student] = submission
        self.known.update({("student", "notebook", name, assignment, student): one for name, one in submitted.items()})
        return submission

    def find_submission_notebook(self, notebook: str, assignment: str, student: str) -> Any:
        """Its score is a sum that the database makes, so for who is late, and may get a penalty, it is asked for anew."""
        found = self._submitted(notebook, assignment, student)
        if found.assignment.total_seconds_late > 0:
            self.db.flush()
            self._write_rows()
            self.db.expire(found)
        return found

    def _submitted(self, notebook: str, assignment: str, student: str) -> Any:
        return self._once(super().find_submission_notebook, notebook, assignment, student, prefix=("student", "notebook"))

    def really_commit(self) -> None:
        self._write_rows()
        self.commit()

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
