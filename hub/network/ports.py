"""Which loopback port each process of a site listens on: given once, kept afterwards, none of them public but the proxy's."""

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub import paths

if TYPE_CHECKING:
    from hub.config.site import Site


@dataclass(frozen=True)
class Ports:
    public: int                      # the proxy: the only one that people use
    proxy_api: int
    hub: int
    exchange: int
    autograder: int
    formgrader: dict[str, int]       # class id -> port

    def named(self) -> dict[str, int]:
        fixed = {name: getattr(self, name) for name in ("public", "proxy_api", "hub", "exchange", "autograder")}
        return {**fixed, **{f"formgrader {name}": port for name, port in self.formgrader.items()}}


def load(site: "Site") -> Ports:
    """The site's ports. A class keeps its port when others are added before it: its formgrader is not restarted."""
    store = paths.RUN / "ports.json"
    try:
        kept = json.loads(store.read_text())
    except (OSError, ValueError):
        kept = {}
    base = site.port
    known: dict[str, int] = kept.get("formgrader", {}) if kept.get("base") == base else {}
    for class_ in site.classes:
        if class_.id not in known:
            known[class_.id] = max(known.values(), default=base + 9) + 1
    if kept != {"base": base, "formgrader": known}:
        paths.RUN.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps({"base": base, "formgrader": known}, indent=1))
    return Ports(base, base + 1, base + 2, base + 3, base + 4, {c.id: known[c.id] for c in site.classes})


def taken(port: int) -> bool:
    """Whether something on this machine listens on that loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
