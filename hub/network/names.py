"""Under which name people reach what: one name for the whole site, or one for each person's servers and each service below it.

A browser keeps apart what is served under different names. With `site.subdomains` a page of one person's server can therefore not
act on the hub, in a formgrader or in another person's server, whoever looks at it. JupyterHub names them (`alice.HOST`,
`ml101--service.HOST`), configurable-http-proxy tells them apart by the Host header.
"""

from typing import Any
from urllib.parse import urlsplit

from hub.config.site import Site
from hub.network.wiring import LOOPBACK, Wiring


def of_service(site: Site, name: str) -> str:
    """Scheme, name and port under which people reach a service. Empty where it is the site's own: a path is enough there."""
    if not site.settings.subdomains:
        return ""
    from jupyterhub.utils import subdomain_hook_idna  # late: services that are launched without subdomains need no JupyterHub

    parts = urlsplit(site.url)
    return f"{parts.scheme}://{subdomain_hook_idna(name, parts.hostname, 'service')}{f':{parts.port}' if parts.port else ''}"


def configure(c: Any, site: Site, wired: Wiring, services: dict[str, str]) -> None:
    """JupyterHub's own settings for this. `services`: where the hub finds each."""
    if not site.settings.subdomains:
        return
    c.JupyterHub.subdomain_host = site.url
    # What asks from inside (students' servers, formgraders, health checks) knows the proxy by its address, not by people's names.
    c.Proxy.extra_routes = {f"{host}/services/{name}/": url for host in (LOOPBACK, wired.public.host) for name, url in services.items()}
    c.JupyterHub.extra_handlers = [(r"/services/([^/]+)/(.*)", to_service(site))]


def to_service(site: Site) -> type:
    """Takes whoever asks for a service under another name to its own: nbgrader's course list links to them by path."""
    from jupyterhub.handlers.base import BaseHandler

    class ToService(BaseHandler):
        def get(self, name: str, rest: str) -> None:
            if name not in {class_.id for class_ in site.classes}:
                self.send_error(404)
                return
            query = f"?{self.request.query}" if self.request.query else ""
            self.redirect(f"{of_service(site, name)}/services/{name}/{rest}{query}")

    return ToService
