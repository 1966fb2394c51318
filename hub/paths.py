"""Where a site keeps its things: one place, so that nobody else builds a path."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
STATE = Path(os.environ.get("TINYTORCH_STATE", REPO / ".state")).resolve()      # everything that a backup must hold
ENVS = Path(os.environ.get("TINYTORCH_ENVS", REPO / ".envs")).resolve()          # made from the locks, can be thrown away
BUILD = Path(os.environ.get("TINYTORCH_BUILD", REPO / "build")).resolve()        # made from the sources, can be thrown away

CLASSES_YML = Path(os.environ.get("TINYTORCH_CLASSES", REPO / "classes.yml")).resolve()

SECRETS = STATE / "secrets"        # 0700: tokens.json, cookie_secret, signins.csv
HUB = STATE / "hub"                # jupyterhub.sqlite
EXCHANGE = STATE / "exchange"      # ngshare.db, files/
AUTOGRADER = STATE / "autograder"  # jobs.sqlite, logs/, quotas.json
CLASSES = STATE / "classes"        # <class>/: course root of nbgrader, with gradebook.db
HOMES = STATE / "homes"            # <user>/<class>/
LOGS = STATE / "logs"
RUN = STATE / "run"                # pid files, sockets, generated supervisor configuration

STUDENT_EDITION = BUILD / "editions" / "student"
GRADING_EDITIONS = BUILD / "editions" / "grading"


def env_bin(environment: str, program: str) -> Path:
    """A program of one of the environments: hub, exchange, user or node."""
    return ENVS / environment / "bin" / program


def course_root(class_id: str) -> Path:
    return CLASSES / class_id


def home(user: str, class_id: str) -> Path:
    """A (student, class) has one home: what is done in one class is not seen in another."""
    return HOMES / user / class_id
