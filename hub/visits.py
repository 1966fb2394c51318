"""Where people land and what the hub's pages show them: their classes, and nothing of others."""

from typing import Any
from urllib.parse import quote, urlencode

from hub import paths
from hub.config.site import Site
from hub.network import names
from hub.spawning.class_server import check_membership


class Visits:
    """JupyterHub's hooks for one site."""

    def __init__(self, site: Site, isolated: bool) -> None:
        self.site, self.people = site, site.accounts()
        self.template_vars = {
            "site_title": site.title, "site_isolated": isolated, "class_cards": self.cards,
            "class_titles": {c.id: c.title for c in site.classes},
        }

    def classes_of(self, user: Any) -> list[str]:
        """Ids of a person's classes, in the order of classes.yml. Empty for nobody and for a service."""
        person = self.people.get(getattr(user, "name", ""))
        return [c.id for c in self.site.classes if person and c.id in (*person.staff_of, *person.student_of)]

    def teaches(self, user: Any) -> bool:
        person = self.people.get(getattr(user, "name", ""))
        return bool(person and (person.staff_of or person.admin))

    def landing(self, handler: Any) -> str:
        """After signing in: a student's only class opens at once, everybody else chooses. Empty: the sign-in page."""
        user = handler.current_user
        if user is None:
            return ""
        mine = self.classes_of(user)
        if len(mine) == 1 and not self.teaches(user):
            return f"{handler.hub.base_url}user-redirect/{mine[0]}"
        return f"{handler.hub.base_url}home"

    def deep_link(self, path: str, request: Any, user: Any, base_url: str) -> str:
        """/hub/user-redirect/<class>/lab/tree/… leads into one's own server of that class, which is started for it."""
        class_id, _, rest = path.strip("/").partition("/")
        check_membership(self.people, user.name, class_id)
        if not rest:
            fresh = not paths.home(user.name, class_id).exists()
            rest = "lab/tree/Welcome.md" if fresh else "lab"
        query = f"?{request.query}" if request.query else ""
        target = f"{user.url}{class_id}/{quote(rest)}{query}"
        server = user.spawners.get(class_id)
        if server is not None and server.ready:
            return target
        return f"{base_url}hub/spawn/{user.escaped_name}/{class_id}?{urlencode({'next': target})}"

    def refuse_other_servers(self, handler: Any) -> int:
        """The number of servers a person may have: one per class. JupyterHub asks before it makes a server, so one that
        is named after no class of its owner is refused here and leaves no trace."""
        named = [*handler.path_args, *handler.path_kwargs.values()]
        if len(named) == 2 and named[1]:
            owner, server = (part.decode() if isinstance(part, bytes) else part for part in named)
            check_membership(self.people, owner, server)
        return len(self.site.classes)

    def cards(self, user: Any) -> list[dict[str, str]]:
        """What the home page shows of each class of that person."""
        person = self.people.get(getattr(user, "name", ""))
        if person is None:
            return []
        return [{"id": class_id, "title": self.site.class_(class_id).title, "state": state(user.spawners.get(class_id)),
                 "formgrader": self.formgrader(class_id) if class_id in person.staff_of else ""} for class_id in self.classes_of(user)]

    def formgrader(self, class_id: str) -> str:
        """Where its staff grade."""
        return f"{names.of_service(self.site, class_id)}/services/{class_id}/formgrader"


def state(server: Any) -> str:
    """`running`, `starting`, `stopping` or `stopped`."""
    if server is None:
        return "stopped"
    if server.ready:
        return "running"
    return {"stop": "stopping", None: "stopped"}.get(server.pending, "starting")
