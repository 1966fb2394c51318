"""Membership exactly as in classes.yml, before the hub starts: who left a class is out of its group and has no server in it.

JupyterHub's load_groups only adds, and a server that runs would go on for as long as somebody uses it.
"""

import sys

from jupyterhub import orm
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from hub import database, paths
from hub.accounts import roles
from hub.config.site import Site
from hub.spawning import servers


def make_exact(site: Site) -> None:
    """Take out who is not in a class any more. Runs before the hub opens its database."""
    end_servers(site)
    if database.sqlite(site) and not (paths.HUB / "jupyterhub.sqlite").exists():
        return
    wanted = roles.groups_exact(site)
    try:
        session = orm.new_session_factory(database.url(site))()
    except OperationalError as error:
        sys.exit(database.problem(site, error))
    try:
        if not inspect(session.connection()).has_table(orm.Group.__tablename__):
            return
        for group in session.query(orm.Group).all():
            members = wanted.get(group.name, [])
            group.users = [user for user in group.users if user.name in members]
        session.commit()
    finally:
        session.close()


def end_servers(site: Site) -> None:
    """End the servers of people in classes that they are not in any more; their homes stay."""
    people = site.people()
    for file in list(servers.files()):
        person = people.get(file.parent.name)
        if person is None or file.stem not in (*person.staff_of, *person.student_of):
            servers.end(file)
