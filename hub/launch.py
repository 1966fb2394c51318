"""Start one of the site's processes: its settings come from classes.yml, its secrets by environment, never by argv.

    python -m hub.launch hub | proxy | exchange | autograder | formgrader CLASS

On one machine the supervisor runs this, in containers the engine does; each becomes the real program by exec. In containers each
first writes what it needs of classes.yml into its own state, where no other service can write.
"""

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.request

from autograder.sandbox.processes import bubblewrap
from hub import database, paths, secrets
from hub.config import documents
from hub.config.site import Site
from hub.network import names, wiring

KEPT = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
        "TINYTORCH_STATE", "TINYTORCH_ENVS", "TINYTORCH_BUILD", "TINYTORCH_CLASSES", "TINYTORCH_DATA", wiring.VARIABLE)
OF_THE_HUB = ("DOCKER_HOST", "TINYTORCH_PROJECT", "TINYTORCH_STUDENT_IMAGE", "TINYTORCH_SOCKETS", "TINYTORCH_HOST_SOCKETS")
GIVEN = ("TINYTORCH_OIDC_CLIENT_SECRET", "TINYTORCH_DATABASE_PASSWORD")      # where they are not files; in the hub's environment alone


class Launcher:
    """argv and environment of every process of one site."""

    def __init__(self, site: Site) -> None:
        self.site, self.wiring, self.secrets = site, wiring.load(site), secrets.load()
        self.base = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.base |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(paths.RUN), "PYTHONUNBUFFERED": "1",
                      "PYTHONPATH": str(paths.REPO)}

    def service(self, name: str, place: wiring.Place) -> dict[str, str]:
        """What JupyterHub gives a service that it starts itself; ours are started by the supervisor."""
        prefix = f"/services/{name}/"
        access = json.dumps([f"access:services!service={name}"])
        return {
            "JUPYTERHUB_API_TOKEN": self.secrets.service_token(name), "JUPYTERHUB_CLIENT_ID": f"service-{name}",
            "JUPYTERHUB_API_URL": f"{self.wiring.hub.url}/hub/api", "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_HOST": self.site.url if self.site.settings.subdomains else "",
            "JUPYTERHUB_SERVICE_NAME": name, "JUPYTERHUB_SERVICE_PREFIX": prefix, "JUPYTERHUB_SERVICE_URL": place.bind_url,
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{names.of_service(self.site, name)}{prefix}oauth_callback",
            "JUPYTERHUB_OAUTH_SCOPES": access, "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access, "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        }

    def hub(self) -> tuple[list[str], dict[str, str]]:
        config = paths.REPO / "hub" / "jupyterhub_config.py"
        given = {name: os.environ[name] for name in GIVEN if name in os.environ}
        return [str(paths.env_bin("hub", "jupyterhub")), "-f", str(config)], {
            **self.base, **given, **{name: os.environ[name] for name in OF_THE_HUB if name in os.environ},
            "PATH": f"{paths.ENVS}/hub/bin:/usr/local/bin:/usr/bin:/bin", "CONFIGPROXY_AUTH_TOKEN": self.secrets.proxy_token}

    def proxy(self) -> tuple[list[str], dict[str, str]]:
        chp = paths.ENVS / "proxy" / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
        public, api = self.wiring.public, self.wiring.proxy_api
        return [str(paths.ENVS / "proxy" / "node"), str(chp), "--ip", public.bind, "--port", str(public.port),
                "--api-ip", api.bind, "--api-port", str(api.port), "--error-target", f"{self.wiring.hub.url}/hub/error",
                *(["--host-routing"] if self.site.settings.subdomains else [])], {
            **self.base, "CONFIGPROXY_AUTH_TOKEN": self.secrets.proxy_token}

    def exchange(self) -> tuple[list[str], dict[str, str]]:
        place = self.wiring.exchange
        return [str(paths.env_bin("exchange", "python")), str(paths.REPO / "hub" / "exchange" / "serve.py"),
                "--host", place.bind, "--port", str(place.port),
                "--folder", str(paths.EXCHANGE), "--site", str(paths.EXCHANGE / "site.json")], {
            **self.base, "PYTHONPATH": "", **self.service("ngshare", place)}

    def autograder(self) -> tuple[list[str], dict[str, str]]:
        place, address = self.wiring.autograder, database.of_jobs(self.site)
        return [str(paths.env_bin("user", "python")), "-m", "autograder.service", "--host", place.bind,
                "--port", str(place.port), "--state", str(paths.AUTOGRADER), "--quotas", str(paths.AUTOGRADER / "quotas.json")], {
            **self.base, **self.service("autograder", place), **({"AUTOGRADER_DATABASE": address} if address else {}),
            "AUTOGRADER_TOKEN": self.secrets.autograder_token, "TINYTORCH_GRADING_EDITIONS": str(paths.GRADING_EDITIONS),
            "TINYTORCH_STUDENT_EDITION": str(paths.STUDENT_EDITION)}

    def formgrader(self, class_id: str) -> tuple[list[str], dict[str, str]]:
        """The class's grading server. It sees its own course and no other; student code runs in the autograder, never here."""
        place, root = self.wiring.formgrader[class_id], paths.course_root(class_id)
        single_user = paths.REPO / "hub" / "single_user"
        user_bin = paths.ENVS / "user" / "bin"
        env = {
            **self.base, **self.service(class_id, place), "HOME": str(root), "PATH": f"{paths.REPO}/bin:{user_bin}:/usr/bin:/bin",
            "PYTHONPATH": f"{paths.REPO}:{single_user}", "JUPYTERHUB_USER": f"grader-{class_id}", "USER": f"grader-{class_id}",
            "JUPYTERHUB_DEFAULT_URL": "/formgrader", "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTER_CONFIG_PATH": f"{single_user}/formgrader:{single_user}", "JUPYTER_PREFER_ENV_PATH": "0",
            "COURSE_ID": class_id, "COURSE_ROOT": str(root), "NGSHARE_URL": f"{self.wiring.public.url}/services/ngshare",
            "AUTOGRADER_URL": self.wiring.autograder.url, "AUTOGRADER_TOKEN": self.secrets.autograder_token,
            "TINYTORCH_GRADING_EDITIONS": str(paths.GRADING_EDITIONS), "TINYTORCH_BUILD": str(paths.BUILD),
            "OPENBLAS_NUM_THREADS": str(max(1, math.ceil(self.site.class_(class_id).limits.cpu))),
            # with half of nbgrader_config.py it would grade without the sandbox: better not at all
            "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR": "1",
        }
        argv = [str(user_bin / "python"), str(single_user / "start.py"), f"--ServerApp.ip={place.bind}",
                f"--ServerApp.port={place.port}", f"--ServerApp.root_dir={root}", *(["--allow-root"] if os.geteuid() == 0 else [])]
        if self.wiring.contained:                # the container is what isolates it
            return argv, {**env, "JUPYTER_RUNTIME_DIR": "/tmp/jupyter"}
        # kernels over sockets in the sandbox's own /tmp: whoever connects to a port gets a kernel's outputs, students share the ports
        inside = {**env, "JUPYTER_RUNTIME_DIR": "/tmp/jupyter"}
        rooms = [(paths.REPO / room, paths.REPO / room) for room in ("autograder", "bin", "course", "hub", "tinytorch")]
        try:
            return bubblewrap.command(
                [*argv, "--KernelManager.transport=ipc"], env=inside, network=True, hostname=f"formgrader-{class_id}", chdir=str(root),
                readonly=[*bubblewrap.python_paths(user_bin / "python"), *rooms, (paths.BUILD, paths.BUILD)],
                writable=[(root, root)]), inside
        except bubblewrap.SandboxUnavailable as lacking:
            print(f"formgrader {class_id} is not isolated from the rest of the site: {lacking}", file=sys.stderr)
            return argv, env


    def prepare(self, name: str, *rest: str) -> None:
        """In containers: what `make up` does on one machine, by each service for itself."""
        if name == "exchange":
            document = documents.exchange(self.site)
            (paths.EXCHANGE / "site.json").write_text(json.dumps(document, indent=1))
        elif name == "autograder":
            (paths.AUTOGRADER / "quotas.json").write_text(json.dumps(documents.quotas(self.site), indent=1))
        elif name == "formgrader":
            described = [class_ for class_ in documents.courses(self.site) if class_["id"] == rest[0]]
            env = {**self.base, "PATH": f"{paths.ENVS}/user/bin:/usr/bin:/bin", "PYTHONWARNINGS": "ignore"}
            subprocess.run([str(paths.env_bin("user", "python")), "-m", "hub.courses"], input=json.dumps(described), env=env, text=True,
                           check=True)
        elif name == "hub":
            from hub.spawning import docker_spawner
            asyncio.run(docker_spawner.end_strangers(self.site, os.environ["TINYTORCH_PROJECT"]))


def wait_for_hub(url: str, seconds: float = 60) -> None:
    """A formgrader looks for the hub at its start, and when it is not there yet only again after up to 16 s."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/hub/api", timeout=5):
            return
        time.sleep(0.1)


def main(arguments: list[str]) -> None:
    launcher = Launcher(Site.load(paths.CLASSES_YML))
    name, *rest = arguments
    if launcher.wiring.contained:
        launcher.prepare(name, *rest)
    argv, env = getattr(launcher, name)(*rest)
    if name == "formgrader":
        os.chdir(paths.course_root(rest[0]))
        wait_for_hub(launcher.wiring.hub.url)
    if name == "hub":
        from hub.accounts import membership
        membership.make_exact(launcher.site)
        os.chdir(paths.HUB)
    os.execve(argv[0], argv, env)


if __name__ == "__main__":
    main(sys.argv[1:])
