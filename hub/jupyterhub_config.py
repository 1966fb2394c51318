"""JupyterHub's configuration: everything in it follows from classes.yml. The supervisor runs proxy and services."""

import logging
import os
import sys

from tornado.netutil import Resolver

from autograder.sandbox.processes import bubblewrap
from hub import database, paths, secrets, visits
from hub.accounts import roles, signin
from hub.config.site import Site
from hub.network import names, sockets, wiring
from hub.spawning import docker_spawner, spawner

c = get_config()

site = Site.load(paths.CLASSES_YML)
wired = wiring.load(site)
secret = secrets.load()
isolated = True
if not wired.contained:
    try:
        bubblewrap.find()
    except bubblewrap.SandboxUnavailable as lacking:
        logging.getLogger("jupyterhub").warning("students' servers are not isolated from each other here: %s", lacking)
        isolated = False
visit = visits.Visits(site, isolated)

# --- where: only the proxy is public, and on a site without TLS not even that
c.JupyterHub.bind_url = wired.public.url
c.JupyterHub.hub_bind_url = wired.hub.bind_url
c.JupyterHub.hub_connect_url = wired.hub.url
c.JupyterHub.db_url = database.url(site)
c.JupyterHub.cookie_secret_file = str(secret.cookie_secret_file)
c.JupyterHub.pid_file = str(paths.RUN / "hub.pid")
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = wired.proxy_api.url
c.ConfigurableHTTPProxy.auth_token = secret.proxy_token

c.JupyterHub.last_activity_interval = 20            # seconds; also how long a proxy that was killed is without its routes

# --- a restart of the hub never ends a student's server
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False

# --- who
signin.configure(c, site, secret)
c.JupyterHub.load_groups = roles.groups(site)
c.JupyterHub.load_roles = roles.roles(site)
c.JupyterHub.authenticate_prometheus = True

# --- one server per person and class, named after the class
if wired.contained:
    c.JupyterHub.spawner_class = docker_spawner.for_site(
        site, os.environ["TINYTORCH_PROJECT"], os.environ["TINYTORCH_STUDENT_IMAGE"], os.environ["TINYTORCH_HOST_SOCKETS"],
        wired.inner_url)
    c.JupyterHub.proxy_class = sockets.SocketProxy
    c.Spawner.hub_connect_url = wired.inner_url
    Resolver.configure(sockets.SocketResolver)
else:
    c.JupyterHub.spawner_class = spawner.for_site(site, wired.public.port, isolated)
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = visit.refuse_other_servers
c.JupyterHub.default_url = visit.landing
c.JupyterHub.user_redirect_hook = visit.deep_link
c.JupyterHub.implicit_spawn_seconds = 1             # an address of a stopped server starts it again
c.JupyterHub.concurrent_spawn_limit = 20
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 60
c.Spawner.poll_interval = 30
c.Spawner.ip = "127.0.0.1"

# --- services: the supervisor starts them, except for the culler
served = {roles.EXCHANGE: wired.exchange.url, roles.AUTOGRADER: wired.autograder.url,
          **{class_.id: wired.formgrader[class_.id].url for class_ in site.classes}}
names.configure(c, site, wired, served)
c.JupyterHub.services = [
    *({"name": name, "url": url, "api_token": secret.service_token(name), "oauth_no_confirm": True, "display": False}
      for name, url in served.items()),
    {"name": roles.PROMETHEUS, "api_token": secret.service_token(roles.PROMETHEUS), "display": False},
    {"name": roles.CULLER, "command": [sys.executable, "-m", "hub.spawning.culler", f"--timeout={site.idle_minutes * 60}",
                                       f"--cull-every={min(300, site.idle_minutes * 30)}"], "cwd": str(paths.REPO)},
]

# --- pages
c.JupyterHub.tornado_settings = {
    "headers": {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"},
    # no cookie travels over plain http, the one against forged requests neither
    **({"cookie_options": {"secure": True}} if site.url.startswith("https:") else {})}
c.JupyterHub.template_paths = [str(paths.REPO / "hub" / "pages")]
c.JupyterHub.logo_file = str(paths.REPO / "hub" / "pages" / "logo.svg")
c.JupyterHub.template_vars = {**visit.template_vars, **signin.template_vars(site)}
