"""Who may do what on the hub: JupyterHub's groups and roles, derived from the site. Pure functions, no hub needed.

Default deny: each role lists its exact scopes, none of them an admin scope, `inherit` or `self`. Group names are those
that nbgrader hard-codes: `nbgrader-<class>` for students, `formgrade-<class>` for staff.
"""

from typing import Any

from hub.config.site import Class, Site

EXCHANGE = "ngshare"
CULLER = "idle-culler"
AUTOGRADER = "autograder"
PROMETHEUS = "prometheus"

Role = dict[str, Any]


def student_group(class_id: str) -> str:
    return f"nbgrader-{class_id}"


def staff_group(class_id: str) -> str:
    return f"formgrade-{class_id}"


def grader_user(class_id: str) -> str:
    """The hub user as whom a class's formgrader asks about its course; nobody signs in under this name."""
    return f"grader-{class_id}"


def service_names(site: Site) -> list[str]:
    """Every service of the hub. A class's formgrader bears the class id, since nbgrader looks for the course's name."""
    return [EXCHANGE, *(class_.id for class_ in site.classes), CULLER, AUTOGRADER, PROMETHEUS]


def groups_exact(site: Site) -> dict[str, list[str]]:
    """Each group with exactly the members that it must have. load_groups only adds: whoever left must be taken out."""
    members: dict[str, list[str]] = {}
    for class_ in site.classes:
        members[student_group(class_.id)] = [student.username for student in class_.students]
        members[staff_group(class_.id)] = [*class_.staff, grader_user(class_.id)]
    return members


def groups(site: Site) -> dict[str, dict[str, list[str]]]:
    """For `c.JupyterHub.load_groups`, which also makes the users that do not exist yet."""
    return {name: {"users": users} for name, users in groups_exact(site).items()}


def roles(site: Site) -> list[Role]:
    """For `c.JupyterHub.load_roles`. Exchange and autograder have no role: whose a token is, they ask with that token."""
    per_class = [role for class_ in site.classes for role in (_staff(class_), _formgrader(class_))]
    return [_user(), _server(site), *per_class, _culler(), _prometheus(), _admin(site)]


def _user() -> Role:
    """What everybody may do in the hub's pages: see their own account, start and stop their own servers, open them.

    - read:users:name, read:users:groups: who am I, in which classes; servers and services ask it by the person's token
    - users:activity: a server reports its owner's activity (no token has more than its owner)
    - servers: start and stop one's own; which class's it may be is decided when it starts
    - access:servers: open one's own
    - access:services of the autograder: submit jobs, from the server of a class (no token has more than its owner)
    JupyterHub's default, `self`, would add tokens (nobody here needs one of their own) and shares (nobody shares a server).
    """
    mine = ("read:users:name", "read:users:groups", "users:activity", "servers", "access:servers")
    return {"name": "user", "scopes": [*(f"{scope}!user" for scope in mine), f"access:services!service={AUTOGRADER}"]}


def _server(site: Site) -> Role:
    """What the token inside a running server may do; never more than the server's owner.

    - users:activity!user: report that somebody is at work, so that the culler leaves the server alone
    - access:servers!server: this one server, so that a token of one class's server opens no other
    - read:users:groups!user: nbgrader and the autograder ask in which classes its user is
    - access:services of the autograder: submit jobs; the server's scope above says for which class
    - list:services, read:services of the formgraders: nbgrader's course list; only staff own these scopes
    """
    scopes = ["users:activity!user", "access:servers!server", "read:users:groups!user",
              f"access:services!service={AUTOGRADER}"]
    for class_ in site.classes:
        scopes += _see_service(class_.id)
    return {"name": "server", "scopes": scopes}


def _staff(class_: Class) -> Role:
    """What a class's instructors and graders may do.

    - access:services: open the class's formgrader
    - list:services, read:services: nbgrader's course list shows it, with its address
    """
    scopes = [f"access:services!service={class_.id}", *_see_service(class_.id)]
    return {"name": staff_group(class_.id), "groups": [staff_group(class_.id)], "scopes": scopes}


def _formgrader(class_: Class) -> Role:
    """What a class's formgrader may ask the hub.

    - read:users:groups of its own user: nbgrader checks that this user grades the course
    - list:services, read:services of itself: the course list inside the formgrader
    It may not write groups: who is in a class is written in its roster only.
    """
    scopes = [f"read:users:groups!user={grader_user(class_.id)}", *_see_service(class_.id)]
    return {"name": f"svc-{class_.id}", "services": [class_.id], "scopes": scopes}


def _culler() -> Role:
    """What the idle culler needs.

    - list:users, read:users:activity: who has servers, and when were they last active
    - read:servers: when was each of them
    - delete:servers: stop the idle ones
    """
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    return {"name": CULLER, "services": [CULLER], "scopes": scopes}


def _prometheus() -> Role:
    """What reads the measurements of hub, exchange and autograder, and nothing else.

    - read:metrics: counts and times; no name of a person is in them
    """
    return {"name": PROMETHEUS, "services": [PROMETHEUS], "scopes": ["read:metrics"]}


def _admin(site: Site) -> Role:
    """Who is an admin, exactly: JupyterHub never takes the admin flag from somebody who is only no longer listed.

    No scopes here: they are those of JupyterHub's own admin role.
    """
    return {"name": "admin", "users": site.admins}


def _see_service(class_id: str) -> list[str]:
    return [f"list:services!service={class_id}", f"read:services!service={class_id}"]
