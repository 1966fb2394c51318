"""nbgrader's assignment list, which says why something failed (nbgrader_pages.py loads it).

nbgrader 0.9.6 drops the outcome of a failed fetch and shows tracebacks for other failures. This replaces the manager behind
its list: the reason of a failure is one sentence, and a failed fetch answers with it.
"""

import os
import textwrap

from nbgrader.server_extensions.assignment_list import handlers as nbgrader_list
from sentences import sentence

COLUMNS = 90             # of the box that shows why a submission failed; it wraps no line
BACK = "The round arrow at the top right brings the list back."


class ClearAssignmentList(nbgrader_list.AssignmentList):
    """nbgrader's manager, with outcomes that reach the page."""

    failed = None            # the outcome of a fetch, which nbgrader's handler drops before it asks for the list
    submitted = ""           # what was submitted just now: nbgrader's handler answers with the list, or with why there is none

    def outcome(self, answer):
        """The answer, with the reason of a failure as the page shows it: whole sentences."""
        if answer["success"]:
            return answer
        said = sentence(answer["value"])
        first = said.split()[0]              # maybe the name of a file or of an assignment, which stays as it is
        said = (first.capitalize() if first.isalpha() else first) + said[len(first):]
        return {"success": False, "value": said if said.endswith(".") else f"{said}."}

    def fetched(self, answer):
        """The outcome of a fetch, put by for the list that follows it."""
        answer = self.outcome(answer)
        self.failed = None if answer["success"] else {"success": False, "value": f"{answer['value']} {BACK}"}
        return answer

    def fetch_assignment(self, course_id, assignment_id):
        return self.fetched(super().fetch_assignment(course_id, assignment_id))

    def fetch_feedback(self, course_id, assignment_id):
        return self.fetched(super().fetch_feedback(course_id, assignment_id))

    def submit_assignment(self, course_id, assignment_id):
        answer = self.outcome(super().submit_assignment(course_id, assignment_id))
        self.submitted = assignment_id if answer["success"] else ""
        return answer if answer["success"] else {"success": False, "value": textwrap.fill(answer["value"], COLUMNS)}

    def list_assignments(self, course_id=None):
        if self.failed is not None:
            answer, self.failed = self.failed, None
            return answer
        answer, submitted, self.submitted = self.outcome(super().list_assignments(course_id=course_id)), self.submitted, ""
        if submitted and not answer["success"]:
            said = f"{submitted} was submitted. The list could not be renewed, though: {answer['value']}"
            answer["value"] = textwrap.fill(said, COLUMNS)
        return answer

    def list_courses(self):
        """This server's class, before anything of it is released, too: nbgrader would say that no courses were found."""
        answer = super().list_courses()
        return {"success": True, "value": sorted({*answer["value"], os.environ["COURSE_ID"]})} if answer["success"] else answer


def load(app):
    """Load nbgrader's extension and put our manager in place of its own."""
    nbgrader_list.load_jupyter_server_extension(app)
    manager = ClearAssignmentList(parent=app)
    manager.root_dir = app.root_dir
    app.web_app.settings["assignment_list_manager"] = manager
