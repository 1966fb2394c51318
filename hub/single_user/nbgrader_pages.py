"""A Jupyter server extension: nbgrader's assignment list and validation, imported at the first request for one of them.

A Lab that opens asks neither; they cost a third of its start. Even then the gradebook's database stays out, which a student's
server has none of: half of what was left.
"""

from jupyter_server.utils import url_path_join
from postponed import postponed, when_called
from tornado.routing import PathMatches, Router, Rule

PATHS = "(?:assignments(?:/.*)?|courses|nbgrader_version)"


class MissingEntry(Exception):
    """In place of the gradebook's, which is raised where a gradebook is."""


def load(app):
    """Give the server nbgrader's own handlers."""
    gradebook = when_called("nbgrader.api", "Gradebook", "Student", "Assignment", "SubmittedNotebook")
    with postponed({"sqlalchemy": {}, "nbgrader.api": {"MissingEntry": MissingEntry, **gradebook},
                    "nbgrader.apps.api": when_called("nbgrader.apps.api", "NbGraderAPI")}):
        import assignment_list
        from nbgrader.server_extensions import validate_assignment
    assignment_list.load(app)
    validate_assignment.load_jupyter_server_extension(app)


class UntilAsked(Router):
    """Stands where nbgrader's pages will be; whoever asks for one of them is answered by nbgrader's own handlers."""

    def __init__(self, app):
        self.app = app
        self.rules = app.web_app.default_router.rules
        self.rule = Rule(PathMatches(url_path_join(app.base_url, PATHS)), self)
        self.rules.insert(-1, self.rule)                   # before the server's own; `add_handlers` would do that, but takes no router

    def find_handler(self, request, **kwargs):
        if self.rule in self.rules:
            load(self.app)
            self.rules.remove(self.rule)
        return self.app.web_app.find_handler(request, **kwargs)


def _jupyter_server_extension_points():
    return [{"module": "nbgrader_pages"}]


def _load_jupyter_server_extension(app):
    UntilAsked(app)
