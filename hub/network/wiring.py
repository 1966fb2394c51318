"""Where each part of a site listens and is found: on loopback ports of one machine, or in containers under their services' names.

The one place that knows. `TINYTORCH_WIRING=containers` says the second; without it a site is on one machine.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.network import ports

if TYPE_CHECKING:
    from hub.config.site import Site

VARIABLE = "TINYTORCH_WIRING"
LOOPBACK = "127.0.0.1"
CONTAINED = {"public": ("proxy", 8000), "proxy_api": ("proxy", 8001), "hub": ("hub", 8081), "exchange": ("exchange", 8003),
             "autograder": ("autograder", 8004)}
FORMGRADER_PORT = 8010                   # each has a container of its own
DOOR_PORT = 8000                         # on loopback inside a person's container: the door to the public proxy (hub/network/door.py)
EGRESS_PORT = 3128                       # likewise, to the class's way out (hub/network/egress.py)


@dataclass(frozen=True)
class Place:
    """Where the others find a part (`host`), and on which address it listens itself (`bind`)."""

    host: str
    port: int
    bind: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def bind_url(self) -> str:
        return f"http://{self.bind}:{self.port}"


@dataclass(frozen=True)
class Wiring:
    """The places of one site's parts."""

    contained: bool
    public: Place
    proxy_api: Place
    hub: Place
    exchange: Place
    autograder: Place
    formgrader: dict[str, Place]         # by class id

    @property
    def inner_url(self) -> str:
        """The site as a person's server sees it: the public proxy, and nothing else where servers are containers."""
        return f"http://{LOOPBACK}:{DOOR_PORT if self.contained else self.public.port}"


def contained() -> bool:
    """Whether this site's parts are containers. ValueError for a wiring that does not exist."""
    said = os.environ.get(VARIABLE, "loopback")
    if said not in ("loopback", "containers"):
        raise ValueError(f"{VARIABLE}={said}: there is loopback (the default, one machine) and containers (set in a Compose file)")
    return said == "containers"


def formgrader_service(class_id: str) -> str:
    return f"formgrader-{class_id}"


def load(site: "Site") -> Wiring:
    """The wiring of this site as this process sees it."""
    if contained():
        places = {name: Place(host, port, "0.0.0.0") for name, (host, port) in CONTAINED.items()}
        graders = {c.id: Place(formgrader_service(c.id), FORMGRADER_PORT, "0.0.0.0") for c in site.classes}
        return Wiring(True, formgrader=graders, **places)
    numbers = ports.load(site)
    places = {name: Place(LOOPBACK, getattr(numbers, name), LOOPBACK) for name in CONTAINED}
    return Wiring(False, formgrader={name: Place(LOOPBACK, port, LOOPBACK) for name, port in numbers.formgrader.items()}, **places)
