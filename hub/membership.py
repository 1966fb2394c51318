"""Group membership exactly as in classes.yml. JupyterHub's load_groups only adds, so who left is taken out before it starts."""

from jupyterhub import orm

from hub import paths, roles
from hub.site import Site


def make_exact(site: Site) -> None:
    """Take everybody out of a group of this site who is not in it any more. Runs before the hub opens its database."""
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
