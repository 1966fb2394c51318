"""A person's home in one class: made at the first start of their server, never overwritten afterwards."""

from pathlib import Path

from hub import paths

WELCOME = """# Welcome to {title}

1. Menu **Nbgrader**, then **Assignment List**: press **Fetch** at the first assignment, open its notebook
   and work through it from top to bottom.
2. **Validate** runs the visible tests. **Submit** hands your work in; you may submit again until the due date.
3. When your work is graded, **Fetch Feedback** appears in the same list. Once fetched, it opens by the words *(view feedback)*
   beside the date of your submission.

A terminal (menu **File**, **New**, **Terminal**) knows the command `tito`: `tito module status` shows where you are,
`tito module complete 01` checks a module and makes it part of your own framework, `tito system doctor` finds what is
wrong.

Your notebooks are in `modules/source`. You may delete this file.
"""

STAFF_WELCOME = """# Welcome to {title}

This is your own workspace, as your students have one. You grade in the class's formgrader: menu **Nbgrader**,
**Course List**, or the button **Open formgrader** on the hub's home page (menu **File**, **Hub Control Panel**).

You may delete this file.
"""


def prepare(user: str, class_id: str, title: str, staff: bool) -> Path:
    """Make the home if it is not there yet, and return it. Only its owner can look into it."""
    home = paths.home(user, class_id)
    if home.exists():
        return home
    fresh = home.with_name(f".{home.name}.new")            # a start that is cut off leaves no half-made home
    for folder in (".tito", "modules/source", "tinytorch/core"):
        (fresh / folder).mkdir(parents=True, exist_ok=True)
    (fresh / "Welcome.md").write_text((STAFF_WELCOME if staff else WELCOME).format(title=title), encoding="utf-8")
    fresh.chmod(0o700)
    fresh.rename(home)
    return home
