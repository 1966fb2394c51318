"""A Jupyter server extension for a class's formgrader: the button *Autograde all* on the page of an assignment's submissions.

nbgrader's page grades one student per click and sends instructors to a terminal for the rest. The button runs the same command,
`nbgrader autograde ASSIGNMENT`, which grades what is new in parallel (autograder/marks/batch.py), and shows how far it is. It goes on
when the page is closed; whoever opens the page again sees it.
"""

import json
import os
import re
import subprocess
import threading
from collections import deque

from jupyter_server.utils import url_path_join
from nbgrader.server_extensions.formgrader.base import BaseApiHandler, check_notebook_dir, check_xsrf
from tornado import web

SUMMARY = re.compile(r"\d+ submissions? run in ")          # the last line of autograder/marks/batch.py
PROBLEM = re.compile(r"\| (ERROR|CRITICAL)\] (.*)")
STEP = re.compile(r"\| INFO\] Autograding ")


class Run:
    """One running or finished `nbgrader autograde`."""

    def __init__(self, assignment):
        self.line, self.summary, self.marked = "starting", "", 0
        self.problems: deque[str] = deque(maxlen=50)
        self.process = subprocess.Popen(
            ["nbgrader", "autograde", assignment],              # bin/nbgrader, by the PATH (hub/launch.py)
            cwd=os.environ["COURSE_ROOT"], text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.process.stdout or ():
            line = line.replace("\r", "").strip()
            if line.startswith("grading: "):
                self.line = line
            elif SUMMARY.match(line):
                self.summary = line
            elif problem := PROBLEM.search(line):
                nothing = problem[2].startswith("No notebooks were matched")
                self.problems.append("There is no submission to grade: collect first" if nothing else problem[2])
            elif STEP.search(line):
                self.marked += 1
                self.line = f"writing marks: {self.marked}"
        self.process.wait()

    def state(self):
        running = self.process.poll() is None
        done = self.summary or f"{self.marked} submission{'' if self.marked == 1 else 's'} graded"
        return {"running": running, "line": self.line if running else done, "problems": list(self.problems)}


class AutogradeAll(BaseApiHandler):
    """POST starts it, GET says how far it is."""

    runs: dict = {}      # by assignment; one at a time, because nbgrader's gradebook is one file

    @web.authenticated
    @check_xsrf
    @check_notebook_dir
    def post(self, assignment):
        running = next((name for name, run in self.runs.items() if run.process.poll() is None), None)
        if running and running != assignment:
            raise web.HTTPError(409, f"{running} is being graded: wait until it is done")
        if not running:
            self.runs[assignment] = Run(assignment)
        self.write(json.dumps(self.runs[assignment].state()))

    @web.authenticated
    @check_xsrf
    @check_notebook_dir
    def get(self, assignment):
        run = self.runs.get(assignment)
        self.write(json.dumps(run.state() if run else {"running": False, "line": "", "problems": []}))


SCRIPT = """
document.addEventListener("DOMContentLoaded", function () {
  if (typeof assignment_id === "undefined" || !location.pathname.includes("/manage_submissions/")) return;
  const url = base_url + "/formgrader/api/assignment/" + encodeURIComponent(assignment_id) + "/autograde_all";
  const key = "autograded " + url;
  const button = $("<button/>").attr({type: "button", id: "autograde-all"}).addClass("btn btn-primary").text("Autograde all");
  const said = $("<span/>").attr({role: "status", "aria-live": "polite", id: "autograde-all-said"}).css("margin-left", "1em");
  const problems = $("<ul/>").attr("id", "autograde-all-problems").addClass("text-danger");
  $(".breadcrumb").after($("<div/>").css("margin-bottom", "1em").append(button, said, problems));
  $("#collapseOne .panel-body").text("Autograde all grades every submission that is new, in parallel. " +
                                     "The icon in a row grades that student's submission again.");
  // the hub asks a GET for the token, too
  const look = () => $.ajax({url: url, dataType: "json", headers: {"X-XSRFToken": getCookie("_xsrf")}});
  function show(state) {
    said.text(state.line);
    problems.empty().append(state.problems.map(text => $("<li/>").text(text)));
    button.prop("disabled", state.running);
  }
  function follow(state) {
    show(state);
    if (!state.running) {
      sessionStorage.setItem(key, JSON.stringify(state));
      location.reload();
    } else {
      setTimeout(() => look().done(follow).fail(() => setTimeout(() => follow(state), 3000)), 1000);
    }
  }
  button.click(function () {
    show({running: true, line: "starting", problems: []});
    $.post(url, null, null, "json").done(follow).fail(answer => {
      const reason = (answer.responseJSON && answer.responseJSON.message) || answer.statusText;
      show({running: false, line: "It could not be started: " + reason, problems: []});
    });
  });
  const before = sessionStorage.getItem(key);
  sessionStorage.removeItem(key);
  if (before) show(JSON.parse(before));
  else look().done(state => { if (state.running) follow(state); });
});
"""


def _jupyter_server_extension_points():
    return [{"module": "autograde_all"}]


def _load_jupyter_server_extension(app):
    app.web_app.add_handlers(".*$", [(url_path_join(app.base_url, "formgrader/api/assignment/([^/]+)/autograde_all"), AutogradeAll)])
