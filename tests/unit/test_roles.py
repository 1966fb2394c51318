"""Groups and roles: least privilege, proven on generated sites and by JupyterHub's own permission code."""

import asyncio
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.accounts import roles
from hub.config.people import HEADER
from hub.config.site import Site
from tests.need import need

try:
    from jupyterhub import orm, scopes
    from jupyterhub.app import JupyterHub
except ImportError:
    JupyterHub = None

PEOPLE = ["ann", "ben", "cleo", "dan", "eve", "fay", "gil", "hal"]
CLASSES = ["ml", "ml1", "ml-1", "ml101", "ml101b", "x"]      # some are prefixes of others


def save(folder: Path, classes: dict[str, dict[str, list[str]]], admins: list[str]) -> Site:
    """A site from class id -> instructors, graders, students."""
    entries = []
    for name, people in classes.items():
        rows = [HEADER, *(f"{student},,," for student in people["students"])]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        entries.append({"id": name, "title": name, "roster": f"{name}.csv",
                        "instructors": people["instructors"], "graders": people["graders"]})
    (folder / "classes.yml").write_text(json.dumps({"site": {"admins": admins}, "classes": entries}))
    return Site.load(folder / "classes.yml")


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Classes in which nobody is student and staff at once, and admins who are no students."""
    classes = {}
    for name in draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4, unique=True)):
        people = draw(st.permutations(PEOPLE))
        i = draw(st.integers(1, 3))
        g = i + draw(st.integers(0, 2))
        s = g + draw(st.integers(0, len(PEOPLE) - g))
        classes[name] = {"instructors": people[:i], "graders": people[i:g], "students": people[g:s]}
    students = {student for people in classes.values() for student in people["students"]}
    admins = draw(st.lists(st.sampled_from([*PEOPLE, "zoe"]), max_size=2, unique=True))
    return classes, [name for name in admins if name not in students]


def sites(run: Any) -> Any:
    """Runs a test on generated sites."""
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(plans())
    def test(plan: tuple[dict[str, dict[str, list[str]]], list[str]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(save(Path(folder), *plan), *plan)
    test.__name__, test.__doc__ = run.__name__, run.__doc__
    return test


def named(site: Site, name: str) -> dict[str, Any]:
    return next(role for role in roles.roles(site) if role["name"] == name)


@sites
def test_no_role_has_an_admin_scope_or_inherits(site, classes, admins):
    for role in roles.roles(site):
        for scope in role.get("scopes", []):
            assert not scope.startswith("admin"), (role["name"], scope)
            assert scope not in ("inherit", "self", "all"), (role["name"], scope)


@sites
def test_only_culler_and_prometheus_have_a_scope_without_a_filter(site, classes, admins):
    for role in roles.roles(site):
        if role["name"] not in (roles.CULLER, roles.PROMETHEUS):
            assert all("!" in scope for scope in role.get("scopes", [])), role


@sites
def test_a_class_s_roles_mention_only_that_class(site, classes, admins):
    for name in classes:
        mine = {f"service={name}", f"user=grader-{name}"}
        for role in (named(site, f"formgrade-{name}"), named(site, f"svc-{name}")):
            assert {scope.partition("!")[2] for scope in role["scopes"]} <= mine, role
        assert named(site, f"formgrade-{name}")["groups"] == [f"formgrade-{name}"]
        assert named(site, f"svc-{name}")["services"] == [name]


@sites
def test_nothing_but_its_own_role_says_a_class_s_name_except_the_server_s(site, classes, admins):
    for role in roles.roles(site):
        if role["name"] in ("server", "admin"):
            continue
        owner = role["name"].partition("-")[2] if role["name"].startswith(("svc-", "formgrade-")) else None
        for scope in role["scopes"]:
            value = scope.partition("=")[2].removeprefix("grader-")
            assert value in ("", owner, "autograder"), (role["name"], scope)      # a class cannot be named so


@sites
def test_groups_hold_exactly_who_the_files_name(site, classes, admins):
    wanted = {}
    for name, people in classes.items():
        wanted[f"nbgrader-{name}"] = people["students"]
        wanted[f"formgrade-{name}"] = [*people["instructors"], *people["graders"], f"grader-{name}"]
    assert roles.groups_exact(site) == wanted
    assert roles.groups(site) == {name: {"users": users} for name, users in wanted.items()}


@sites
def test_role_names_are_unique_and_those_of_services_exist(site, classes, admins):
    names = [role["name"] for role in roles.roles(site)]
    assert len(names) == len(set(names))
    served = {service for role in roles.roles(site) for service in role.get("services", [])}
    assert served <= set(roles.service_names(site))
    assert named(site, "admin") == {"name": "admin", "users": admins}


def test_who_leaves_the_roster_leaves_the_group(tmp_path):
    people = {"instructors": ["ann"], "graders": [], "students": ["ben", "cleo"]}
    before = roles.groups_exact(save(tmp_path, {"ml": people}, []))
    after = roles.groups_exact(save(tmp_path, {"ml": {**people, "students": ["cleo"]}}, []))
    assert before["nbgrader-ml"] == ["ben", "cleo"]
    assert after["nbgrader-ml"] == ["cleo"]


def test_services_and_who_has_no_scope():
    site = Site.load(Site.example_path)
    assert roles.service_names(site) == ["ngshare", "ml101", "ml201", "idle-culler", "autograder", "prometheus"]
    served = {service for role in roles.roles(site) for service in role.get("services", [])}
    assert served == {"ml101", "ml201", "idle-culler", "prometheus"}      # neither exchange nor autograder


# ------------------------------------------------------------------------------------ JupyterHub's own permission code
class Hub:
    """JupyterHub's database and permission code, filled as the application fills it at start; nothing listens."""

    def __init__(self, site: Site, database: str = "sqlite:///:memory:") -> None:
        services = [{"name": name, "api_token": f"{name}-{'t' * 32}"} for name in roles.service_names(site)]
        self.app = JupyterHub(db_url=database, authenticator_class="null", services=services,
                              load_groups=roles.groups(site), load_roles=roles.roles(site))
        self.app.log.setLevel(logging.ERROR)
        asyncio.run(self.fill())

    async def fill(self) -> None:
        app = self.app
        app.init_db()
        app.init_hub()
        app.init_oauth()
        await app.init_role_creation()
        await app.init_users()
        await app.init_groups()
        app.init_services()
        await app.init_api_tokens()
        await app.init_role_assignment()

    def person(self, name: str) -> set[str]:
        return set(scopes.get_scopes_for(orm.User.find(self.app.db, name)))

    def service(self, name: str) -> set[str]:
        return set(scopes.get_scopes_for(orm.Service.find(self.app.db, name)))

    def server(self, name: str, class_id: str) -> set[str]:
        """What the token of that server may do: made as the hub makes it when it starts the server."""
        db, user = self.app.db, orm.User.find(self.app.db, name)
        asked = {scope.replace("!server", f"!server={name}/{class_id}") for scope in orm.Role.find(db, "server").scopes}
        granted, _ = scopes._resolve_requested_scopes(
            asked, {scope for role in [*user.roles, *(r for g in user.groups for r in g.roles)] for scope in role.scopes},
            user, db.query(orm.OAuthClient).filter_by(identifier="jupyterhub").one(), db)
        token = orm.APIToken.find(db, user.new_api_token(scopes=granted))
        return set(scopes.get_scopes_for(token))

    def may(self, held: set[str], scope: str) -> bool:
        return scopes.has_scope(scope, held, db=self.app.db)


@pytest.fixture(scope="module")
def hub() -> Hub:
    need("JupyterHub", JupyterHub, "run it with the environment dev (make test)")
    return Hub(Site.load(Site.example_path))


def test_a_student_reaches_the_own_account_and_nothing_else(hub):
    alice = hub.person("alice")
    for scope in ("servers!server=alice/ml101", "access:servers!server=alice/ml101", "read:users:groups!user=alice"):
        assert hub.may(alice, scope), scope
    for scope in ("servers!server=bob/ml101", "access:servers!server=bob/ml101", "read:users:name!user=bob",
                  "access:services!service=ml101", "access:services!service=ml201", "access:services!service=ngshare",
                  "list:services!service=ml101", "read:groups!group=nbgrader-ml101", "tokens!user=alice", "list:users",
                  "read:metrics", "shares!server=alice/ml101"):
        assert not hub.may(alice, scope), scope


def test_the_server_of_one_class_does_not_reach_that_of_another(hub):
    held = hub.server("alice", "ml101")
    assert {scope for scope in held if scope.startswith("access:servers")} == {"access:servers!server=alice/ml101"}
    assert hub.may(held, "users:activity!user=alice")
    assert hub.may(held, "read:users:groups!user=alice")
    for scope in ("access:servers!server=alice/ml201", "servers!server=alice/ml101", "list:services!service=ml101",
                  "access:services!service=ml101", "read:users:name!user=bob"):
        assert not hub.may(held, scope), scope
    assert {scope for scope in held if scope.startswith("access:services")} == {"access:services!service=autograder"}


def test_staff_open_the_formgraders_of_their_classes_only(hub):
    grace, gus = hub.person("grace"), hub.person("gus")
    assert hub.may(grace, "access:services!service=ml101")
    assert hub.may(grace, "access:services!service=ml201")
    assert hub.may(gus, "access:services!service=ml101")
    assert not hub.may(gus, "access:services!service=ml201")
    for scope in ("access:servers!server=alice/ml101", "servers!server=alice/ml101", "list:users", "tokens!user=gus",
                  "groups!group=nbgrader-ml101"):
        assert not hub.may(gus, scope), scope
    assert hub.may(hub.server("gus", "ml101"), "read:services!service=ml101")       # the course list
    assert not hub.may(hub.server("gus", "ml101"), "read:services!service=ml201")


def test_a_formgrader_asks_about_its_own_course_only(hub):
    held = hub.service("ml101")
    assert hub.may(held, "read:users:groups!user=grader-ml101")
    assert hub.may(held, "read:services!service=ml101")
    for scope in ("read:users:groups!user=grader-ml201", "read:users:groups!user=alice", "read:services!service=ml201",
                  "groups!group=nbgrader-ml101", "groups!group=formgrade-ml101", "list:groups", "list:users",
                  "access:servers!server=alice/ml101"):
        assert not hub.may(held, scope), scope


def test_services_without_a_role_have_no_scope(hub):
    assert hub.service("ngshare") == set()
    assert hub.service("autograder") == set()
    assert not hub.may(hub.service("idle-culler"), "servers!server=alice/ml101")    # stops, never starts


def test_an_admin_who_is_no_longer_listed_loses_the_flag(tmp_path):
    need("JupyterHub", JupyterHub, "run it with the environment dev (make test)")
    people = {"instructors": ["ann"], "graders": [], "students": ["ben"]}
    database = f"sqlite:///{tmp_path}/hub.sqlite"
    first = Hub(save(tmp_path, {"ml": people}, ["zoe", "ann"]), database)
    assert first.may(first.person("zoe"), "list:users")
    second = Hub(save(tmp_path, {"ml": people}, ["ann"]), database)
    assert second.may(second.person("ann"), "list:users")
    assert not orm.User.find(second.app.db, "zoe").admin
    assert not second.may(second.person("zoe"), "list:users")


def test_a_class_that_is_gone_leaves_no_role(tmp_path):
    need("JupyterHub", JupyterHub, "run it with the environment dev (make test)")
    people = {"instructors": ["ann"], "graders": [], "students": ["ben"]}
    database = f"sqlite:///{tmp_path}/hub.sqlite"
    Hub(save(tmp_path, {"ml": people, "old": people}, []), database)
    second = Hub(save(tmp_path, {"ml": people}, []), database)
    assert not second.may(second.person("ann"), "access:services!service=old")
    assert second.may(second.person("ann"), "access:services!service=ml")
