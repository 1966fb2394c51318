"""`tito grade`: the instructor's steps of `tito nbgrader` under shorter names."""

import click

from course.tito.commands import nbgrader
from course.tito.names import Group


@click.group("grade", cls=Group)
def group() -> None:
    """Instructors: set up, release, collect, autograde, grade by hand, give feedback.

    \b
    Example:
      tito grade autograde 02
    """


for name, command in {"setup-course": nbgrader.setup_instructor, "class-overview": nbgrader.status, "release": nbgrader.release,
                      "collect": nbgrader.collect, "autograde": nbgrader.autograde, "manual": nbgrader.formgrade,
                      "feedback": nbgrader.feedback}.items():
    group.add_command(command, name)
