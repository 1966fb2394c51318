"""JupyterHub's configuration: everything in it follows from classes.yml. The supervisor runs proxy and services."""

import logging
import sys

from autograder.sandbox import bubblewrap
from hub import paths, ports, roles, secrets, signin, spawner, visits
from hub.site import Site

c = get_config()

site = Site.load(paths.CLASSES_YML)
numbers = ports.load(site)
secret = secrets.load()
people = site.people()
try:
    isolated = bool(bubblewrap.find())
except bubblewrap.SandboxUnavailable as lacking:
    logging.getLogger("jupyterhub").warning("students' servers are not isolated from each other here: %s", lacking)
    isolated = False
visit = visits.Visits(site, isolated)

# --- where: only the proxy is public, and on a site without TLS not even that
c.JupyterHub.bind_url = f"http://127.0.0.1:{numbers.public}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{numbers.hub}"
c.JupyterHub.db_url = f"sqlite:///{paths.HUB / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(secret.cookie_secret_file)
c.JupyterHub.pid_file = str(paths.RUN / "hub.pid")
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{numbers.proxy_api}"
c.ConfigurableHTTPProxy.auth_token = secret.proxy_token

# --- a restart of the hub never ends a student's server
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False

# --- who
c.JupyterHub.authenticator_class = signin.accounts(people)
c.ClassSignIn.signins_file = str(secret.signins_file)
c.Authenticator.allowed_users = set(people)
c.Authenticator.allow_existing_users = False         # else whoever was here once could always come back
c.Authenticator.delete_invalid_users = False
c.NativeAuthenticator.minimum_password_length = 12
c.NativeAuthenticator.check_common_password = True
c.NativeAuthenticator.allowed_failed_logins = 5
c.NativeAuthenticator.seconds_before_next_try = 300
c.JupyterHub.load_groups = roles.groups(site)
c.JupyterHub.load_roles = roles.roles(site)
c.JupyterHub.authenticate_prometheus = True

# --- one server per person and class, named after the class
c.JupyterHub.spawner_class = spawner.for_site(site, numbers.public, isolated)
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
c.JupyterHub.services = [
    {"name": roles.EXCHANGE, "url": f"http://127.0.0.1:{numbers.exchange}", "api_token": secret.service_token(roles.EXCHANGE),
     "oauth_no_confirm": True, "display": False},
    *({"name": class_.id, "url": f"http://127.0.0.1:{numbers.formgrader[class_.id]}",
       "api_token": secret.service_token(class_.id), "oauth_no_confirm": True, "display": False} for class_ in site.classes),
    {"name": roles.AUTOGRADER, "url": f"http://127.0.0.1:{numbers.autograder}", "api_token": secret.service_token(roles.AUTOGRADER),
     "oauth_no_confirm": True, "display": False},
    {"name": roles.CULLER, "command": [sys.executable, "-m", "hub.culler", f"--timeout={site.idle_minutes * 60}",
                                       f"--cull-every={min(300, site.idle_minutes * 30)}"], "cwd": str(paths.REPO)},
]

# --- pages
c.JupyterHub.tornado_settings = {"headers": {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}}
c.JupyterHub.template_paths = [str(paths.REPO / "hub" / "pages")]
c.JupyterHub.logo_file = str(paths.REPO / "hub" / "pages" / "logo.svg")
c.JupyterHub.template_vars = visit.template_vars
