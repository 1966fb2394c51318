"""Membership exactly as in classes.yml, before the hub starts: who left a class is out of its group and has no server in it.

JupyterHub's load_groups only adds, and a server that runs would go on for as long as somebody uses it.
"""

from jupyterhub import orm

from hub import paths, roles, servers
from hub.site import Site


def make_exact(site: Site) -> None:
    """Take out who is not in a class any more. Runs before the hub opens its database."""
    end_servers(site)
    database = paths.HUB / "jupyterhub.sqlite"
    if not database.exists():
        return
    wanted = roles.groups_exact(site)
    session = orm.new_session_factory(f"sqlite:///{database}")()
    try:
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
