"""Start one of the site's processes: its settings come from classes.yml, its secrets by environment, never by argv.

    python -m hub.launch hub | proxy | exchange | autograder | formgrader CLASS

The supervisor runs this; each becomes the real program by exec.
"""

import contextlib
import json
import math
import os
import sys
import time
import urllib.request

from autograder.sandbox import bubblewrap
from hub import paths, ports, secrets
from hub.site import Site

KEPT = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
        "TINYTORCH_STATE", "TINYTORCH_ENVS", "TINYTORCH_BUILD", "TINYTORCH_CLASSES", "TINYTORCH_DATA")


class Launcher:
    """argv and environment of every process of one site."""

    def __init__(self, site: Site) -> None:
        self.site, self.ports, self.secrets = site, ports.load(site), secrets.load()
        self.base = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.base |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(paths.RUN), "PYTHONUNBUFFERED": "1",
                      "PYTHONPATH": str(paths.REPO)}

    def service(self, name: str, port: int) -> dict[str, str]:
        """What JupyterHub gives a service that it starts itself; ours are started by the supervisor."""
        prefix = f"/services/{name}/"
        access = json.dumps([f"access:services!service={name}"])
        return {
            "JUPYTERHUB_API_TOKEN": self.secrets.service_token(name), "JUPYTERHUB_CLIENT_ID": f"service-{name}",
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{self.ports.hub}/hub/api", "JUPYTERHUB_BASE_URL": "/", "JUPYTERHUB_HOST": "",
            "JUPYTERHUB_SERVICE_NAME": name, "JUPYTERHUB_SERVICE_PREFIX": prefix, "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
            "JUPYTERHUB_OAUTH_SCOPES": access, "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access, "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        }

    def hub(self) -> tuple[list[str], dict[str, str]]:
        config = paths.REPO / "hub" / "jupyterhub_config.py"
        return [str(paths.env_bin("hub", "jupyterhub")), "-f", str(config)], {
            **self.base, "PATH": f"{paths.ENVS}/hub/bin:/usr/local/bin:/usr/bin:/bin", "CONFIGPROXY_AUTH_TOKEN": self.secrets.proxy_token}

    def proxy(self) -> tuple[list[str], dict[str, str]]:
        chp = paths.ENVS / "proxy" / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
        return [str(paths.ENVS / "proxy" / "node"), str(chp), "--ip", "127.0.0.1", "--port", str(self.ports.public),
                "--api-ip", "127.0.0.1", "--api-port", str(self.ports.proxy_api),
                "--error-target", f"http://127.0.0.1:{self.ports.hub}/hub/error"], {
            **self.base, "CONFIGPROXY_AUTH_TOKEN": self.secrets.proxy_token}

    def exchange(self) -> tuple[list[str], dict[str, str]]:
        return [str(paths.env_bin("exchange", "python")), str(paths.REPO / "hub" / "exchange" / "serve.py"),
                "--port", str(self.ports.exchange), "--folder", str(paths.EXCHANGE), "--site", str(paths.EXCHANGE / "site.json")], {
            **self.base, "PYTHONPATH": "", **self.service("ngshare", self.ports.exchange)}

    def autograder(self) -> tuple[list[str], dict[str, str]]:
        return [str(paths.env_bin("user", "python")), "-m", "autograder.service", "--port", str(self.ports.autograder),
                "--state", str(paths.AUTOGRADER), "--quotas", str(paths.AUTOGRADER / "quotas.json")], {
            **self.base, **self.service("autograder", self.ports.autograder),
            "AUTOGRADER_TOKEN": self.secrets.autograder_token, "TINYTORCH_GRADING_EDITIONS": str(paths.GRADING_EDITIONS),
            "TINYTORCH_STUDENT_EDITION": str(paths.STUDENT_EDITION)}

    def formgrader(self, class_id: str) -> tuple[list[str], dict[str, str]]:
        """The class's grading server. It sees its own course and no other; student code runs in the autograder, never here."""
        port, root = self.ports.formgrader[class_id], paths.course_root(class_id)
        single_user = paths.REPO / "hub" / "single_user"
        user_bin = paths.ENVS / "user" / "bin"
        env = {
            **self.base, **self.service(class_id, port), "HOME": str(root), "PATH": f"{paths.REPO}/bin:{user_bin}:/usr/bin:/bin",
            "PYTHONPATH": f"{paths.REPO}:{single_user}", "JUPYTERHUB_USER": f"grader-{class_id}", "USER": f"grader-{class_id}",
            "JUPYTERHUB_DEFAULT_URL": "/formgrader", "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTER_CONFIG_PATH": f"{single_user}/formgrader:{single_user}", "JUPYTER_PREFER_ENV_PATH": "0",
            "COURSE_ID": class_id, "COURSE_ROOT": str(root), "NGSHARE_URL": f"http://127.0.0.1:{self.ports.public}/services/ngshare",
            "AUTOGRADER_URL": f"http://127.0.0.1:{self.ports.autograder}", "AUTOGRADER_TOKEN": self.secrets.autograder_token,
            "TINYTORCH_GRADING_EDITIONS": str(paths.GRADING_EDITIONS), "TINYTORCH_BUILD": str(paths.BUILD),
            "OPENBLAS_NUM_THREADS": str(max(1, math.ceil(self.site.class_(class_id).limits.cpu))),
            # with half of nbgrader_config.py it would grade without the sandbox: better not at all
            "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR": "1",
        }
        argv = [str(user_bin / "python"), str(single_user / "start.py"), "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
                f"--ServerApp.root_dir={root}", *(["--allow-root"] if os.geteuid() == 0 else [])]
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


def wait_for_hub(port: int, seconds: float = 60) -> None:
    """A formgrader looks for the hub at its start, and when it is not there yet only again after up to 16 s."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/hub/api", timeout=5):
            return
        time.sleep(0.1)


def main(arguments: list[str]) -> None:
    launcher = Launcher(Site.load(paths.CLASSES_YML))
    name, *rest = arguments
    argv, env = getattr(launcher, name)(*rest)
    if name == "formgrader":
        os.chdir(paths.course_root(rest[0]))
        wait_for_hub(launcher.ports.hub)
    if name == "hub":
        from hub import membership
        membership.make_exact(launcher.site)
        os.chdir(paths.HUB)
    os.execve(argv[0], argv, env)


if __name__ == "__main__":
    main(sys.argv[1:])
