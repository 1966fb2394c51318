"""A Jupyter server extension: the assignment list says why something failed.

nbgrader 0.9.6 drops the outcome of a failed fetch and shows tracebacks for other failures. This replaces the manager behind
its list: the reason of a failure is one sentence, and a failed fetch answers with it.
"""

from nbgrader.server_extensions.assignment_list import handlers as nbgrader_list
from sentences import sentence


class ClearAssignmentList(nbgrader_list.AssignmentList):
    """nbgrader's manager, with outcomes that reach the page."""

    failed = None            # the outcome of a fetch, which nbgrader's handler drops before it asks for the list

    def outcome(self, answer):
        return answer if answer["success"] else {"success": False, "value": sentence(answer["value"])}

    def fetch_assignment(self, course_id, assignment_id):
        answer = self.outcome(super().fetch_assignment(course_id, assignment_id))
        self.failed = None if answer["success"] else answer
        return answer

    def fetch_feedback(self, course_id, assignment_id):
        answer = self.outcome(super().fetch_feedback(course_id, assignment_id))
        self.failed = None if answer["success"] else answer
        return answer

    def submit_assignment(self, course_id, assignment_id):
        return self.outcome(super().submit_assignment(course_id, assignment_id))

    def list_assignments(self, course_id=None):
        if self.failed is not None:
            answer, self.failed = self.failed, None
            return answer
        return self.outcome(super().list_assignments(course_id=course_id))


def _jupyter_server_extension_points():
    return [{"module": "assignment_list"}]


def _load_jupyter_server_extension(app):
    """Load nbgrader's extension (switched off in the configuration, since order matters) and put our manager in its place."""
    nbgrader_list.load_jupyter_server_extension(app)
    manager = ClearAssignmentList(parent=app)
    manager.root_dir = app.root_dir
    app.web_app.settings["assignment_list_manager"] = manager
