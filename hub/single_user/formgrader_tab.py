"""A Jupyter server extension for a class's formgrader: links to it and from it lead somewhere in a tab of its own.

nbgrader's course list links to `/services/<class>/lab?formgrader=true`, which makes JupyterLab show the formgrader in a frame.
The hub forbids frames (`frame-ancestors 'none'` protects every page of this origin), so that tab stays blank. And in a tab of its
own the formgrader links to files as `/tree/...` at the root of the host, where nothing is. Its pages name their class: whoever
teaches several has several such tabs. Failures are said in a sentence instead of a traceback. Enable with
`{"ServerApp": {"jpserver_extensions": {"formgrader_tab": true}}}`; its name sorts before `jupyterlab`, whose /lab it precedes.
"""

import json
import os
from pathlib import Path

import autograde_all
import nbgrader.apps.api
import nbgrader.server_extensions.formgrader
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from sentences import without_traceback
from tornado import web
from tornado.routing import PathMatches, Rule

NAME_THE_CLASS = """
document.addEventListener("DOMContentLoaded", function () {
  document.title = CLASS + ": " + document.title;
  const brand = document.querySelector(".page-header h1");
  if (brand && brand.textContent.trim() === "nbgrader") brand.textContent = CLASS;
});
"""


class ToFormgrader(JupyterHandler):
    """Redirects; who may not use the formgrader is refused there."""

    @web.authenticated
    def get(self):
        self.redirect(url_path_join(self.base_url, "formgrader"))


class Links(JupyterHandler):
    """nbgrader's utils.js, which every page loads, with links into this server's Lab and with what we add to the pages."""

    def get(self):
        script = Path(nbgrader.server_extensions.formgrader.__file__).parent / "static" / "js" / "utils.js"
        text = script.read_text()
        for place in ("/notebooks/", "/edit/", "/tree/"):
            text = text.replace(f'"{place}"', 'base_url + "/lab/tree/"')
        self.set_header("Content-Type", "text/javascript")
        self.finish(text + autograde_all.SCRIPT + NAME_THE_CLASS.replace("CLASS", json.dumps(os.environ["COURSE_ID"])))


class AsksForFormgrader(PathMatches):
    """The path, with `formgrader=true` in the query."""

    def match(self, request):
        return super().match(request) if request.arguments.get("formgrader") == [b"true"] else None


def say_failures_in_words():
    """nbgrader's API runs each step through capture_log, whose outcome the pages show."""
    capture = nbgrader.apps.api.capture_log
    nbgrader.apps.api.capture_log = lambda *args, **kwargs: without_traceback(capture(*args, **kwargs))


def _jupyter_server_extension_points():
    return [{"module": "formgrader_tab"}]


def _load_jupyter_server_extension(app):
    path = url_path_join(app.base_url, "(?:lab|tree)/?")
    say_failures_in_words()
    links = url_path_join(app.base_url, "formgrader/static/js/utils.js")
    app.web_app.add_handlers(".*$", [Rule(AsksForFormgrader(path), ToFormgrader), (links, Links)])
