"""nbgrader's configuration for everybody: the class comes from the environment of the server that reads it.

nbgrader executes this file on every request, so it only sets values; what is patched lives in modules that load once.
"""

import importlib
import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821

if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))
importlib.import_module("exchange_client").configure(c, os.environ["NGSHARE_URL"])

c.CourseDirectory.course_id = os.environ["COURSE_ID"]
c.CourseDirectory.max_file_size = 20_000                 # KB of one file; the exchange refuses more as well
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", ".*"]
c.Authenticator.plugin_class = "nbgrader.auth.JupyterHubAuthPlugin"

if os.environ.get("COURSE_ROOT"):                        # the formgrader of a class
    c.CourseDirectory.root = os.environ["COURSE_ROOT"]
    c.ExchangeCollect.update = True                      # Collect takes a newer submission in place of an older one
    importlib.import_module("course.build.nbgrader_settings").apply(c)
    importlib.import_module("autograder.marks.nbgrader_plugin").configure(c)
    importlib.import_module("autograder.marks.feedback").configure(c)
else:                                                    # a person's workspace: fetched work lies where tito looks for it
    c.Exchange.assignment_dir = str(Path(os.environ["TINYTORCH_WORKSPACE"], "modules", "source"))
