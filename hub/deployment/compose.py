"""The site's services as a Compose file, rendered from classes.yml: the same text for the same site, and no secret in it.

    python -m hub.deployment.compose render --version V --state DIR ... > compose.yml   for docker compose (v2) and docker-compose (v1.29)
    python -m hub.deployment.compose prepare                   as root, in a container of the hub's image: folders, owners and secrets

Services run as one unprivileged user on a read-only root and see of the site's state and secrets what is their own. Only what
starts containers has the engine's socket: the hub. Whoever controls the hub controls the machine.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from hub import database, paths, secrets
from hub.accounts.roles import AUTOGRADER, EXCHANGE
from hub.config import documents
from hub.config.excerpt import excerpt
from hub.config.site import Site, SiteError
from hub.deployment import monitoring
from hub.network import wiring

UID = 10000                              # of every service, in every image; students are 10001
CODE = "/opt/tinytorch-hub"
STATE, SITE, SOCKETS = "/srv/tinytorch", "/etc/tinytorch", "/run/tinytorch"
PYTHON = ["/opt/envs/hub/bin/python", "-m"]
ENGINE = "/var/run/docker.sock"
STOP_SECONDS = "20s"


class Renderer:
    """One site as Compose's document."""

    def __init__(self, site: Site, options: argparse.Namespace) -> None:
        self.site, self.options = site, options

    def document(self) -> dict[str, Any]:
        services = {"proxy": self.proxy(), "door": self.door(), "hub": self.hub(), "exchange": self.exchange(),
                    "autograder": self.autograder()}
        services |= {wiring.formgrader_service(class_.id): self.formgrader(class_.id) for class_ in self.site.classes}
        networks = {"core": {"internal": True}, "edge": {}}
        if self.allows_egress():
            services["egress"] = self.egress()
            networks["egress"] = {}
        if self.options.tls:
            services["caddy"] = self.caddy()
        volumes: dict[str, Any] = {}
        if self.options.monitoring:
            services |= monitoring.monitoring_services(self.site, version=self.options.version, state=self.options.state,
                                                       config=self.options.monitoring, registry=self.options.registry)
            volumes = monitoring.monitoring_volumes(self.site)
        return {"services": services, **({"volumes": volumes} if volumes else {}),
                "networks": {name: {**what, "name": f"{self.options.project}-{name}"} for name, what in networks.items()}}

    def allows_egress(self) -> bool:
        return any(class_.limits.reaches_out for class_ in self.site.classes)

    def service(self, image: str, *module: str, own: tuple[str, ...] = (), networks: tuple[str, ...] = ("core",),
                secret: str = "", reads: Any = None, document: str = "", **more: Any) -> dict[str, Any]:
        """What all have in common. `own`: folders of the state that it sees, and writes; `secret`: whose secrets it reads.

        `reads`: what of classes.yml it depends on; a change makes Compose replace it, and only it. `document`: the folder
        of a part of classes.yml, for who must not read all of it.
        """
        options = self.options
        volumes = [f"{document or options.site}:{SITE}:ro"]
        if secret:
            volumes.append(f"{options.state}/secrets{'' if secret == 'hub' else f'/for/{secret}'}:{STATE}/secrets"
                           f"{'' if secret == 'hub' else ':ro'}")
        volumes += [f"{options.state}/{folder}:{STATE}/{folder}" for folder in own]
        return {
            "image": f"{options.registry}{image}:{options.version}", "entrypoint": [*PYTHON, *module], "command": [],
            "user": f"{UID}:{UID}", "restart": "always", "init": True, "stop_grace_period": STOP_SECONDS,
            "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
            # with an owner: when a container starts again, runc takes the mode from a folder that it made itself
            "tmpfs": ["/tmp:mode=1777,size=512m", f"{STATE}/run:uid={UID},gid={UID},mode=0700,size=16m"],
            "networks": list(networks), "volumes": volumes + more.pop("volumes", []), "working_dir": CODE,
            "environment": {
                wiring.VARIABLE: "containers", "TINYTORCH_STATE": STATE, "TINYTORCH_CLASSES": f"{SITE}/classes.yml",
                "TINYTORCH_ENVS": "/opt/envs", "PYTHONPATH": CODE, "PYTHONDONTWRITEBYTECODE": "1", **more.pop("environment", {})},
            "labels": {"org.tinytorch.project": options.project, "org.tinytorch.reads": digest(reads)},
            "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
            **more,
        }

    def proxy(self) -> dict[str, Any]:
        ports: dict[str, Any] = {"ports": [f"{self.options.publish}:{wiring.CONTAINED['public'][1]}"]} if self.options.publish else {}
        return self.service("proxy", "hub.launch", "proxy", secret="proxy", networks=("core", "edge"),
                            volumes=[f"{self.options.sockets}:{SOCKETS}"], **ports)

    def door(self) -> dict[str, Any]:
        return self.service("hub", "hub.network.door", volumes=[f"{self.options.sockets}:{SOCKETS}"])

    def egress(self) -> dict[str, Any]:
        """Beside none of the other services: what it is led to by mistake is not one of them."""
        reads = {class_.id: [class_.limits.network, class_.limits.hosts] for class_ in self.site.classes}
        return self.service("hub", "hub.network.egress", networks=("egress",), volumes=[f"{self.options.sockets}:{SOCKETS}"], reads=reads)

    def hub(self) -> dict[str, Any]:
        """On `edge` too, for sign-in with another server's accounts and for data bases outside."""
        people = sorted((name, str(person)) for name, person in self.site.people().items())
        return self.service(
            "hub", "hub.launch", "hub", secret="hub", own=("hub", "homes"), networks=("core", "edge"),
            group_add=[str(self.options.docker_group)],
            volumes=[f"{self.options.sockets}:{SOCKETS}", f"{self.options.engine}:{ENGINE}"],
            reads=[json.loads(self.site.model_dump_json()), people],
            environment={
                "DOCKER_HOST": f"unix://{ENGINE}", "TINYTORCH_PROJECT": self.options.project, "TINYTORCH_SOCKETS": SOCKETS,
                "TINYTORCH_HOST_SOCKETS": self.options.sockets,
                "TINYTORCH_STUDENT_IMAGE": f"{self.options.registry}student:{self.options.version}"})

    def exchange(self) -> dict[str, Any]:
        return self.service("exchange", "hub.launch", "exchange", secret=EXCHANGE, own=("exchange",),
                            reads=documents.exchange(self.site))

    def autograder(self) -> dict[str, Any]:
        """It isolates student code by user namespaces of its own, inside of its container. For these the engine must neither filter its
        system calls nor mask its /proc, and `privileged` is the one word for that which all versions of Compose know. It runs as an
        unprivileged user who cannot gain anything: that is less than the engine's socket, which another kind of sandbox would need.
        Where AppArmor forbids namespaces to programs without a profile (Ubuntu 24.04) a deployment makes one for it.
        On `edge` too where its jobs are in a database outside."""
        outside = not database.sqlite(self.site)
        profile: dict[str, Any] = {}
        if self.options.apparmor:
            profile["security_opt"] = ["no-new-privileges:true", f"apparmor={self.options.apparmor}"]
        return self.service("autograder", "hub.launch", "autograder", secret=AUTOGRADER, own=("autograder",), privileged=True,
                            networks=("core", "edge") if outside else ("core",),
                            reads=[documents.quotas(self.site), self.site.database], **profile)

    def formgrader(self, class_id: str) -> dict[str, Any]:
        described = [class_ for class_ in documents.courses(self.site) if class_["id"] == class_id]
        limits = json.loads(self.site.class_(class_id).limits.model_dump_json())
        return self.service("grader", "hub.launch", "formgrader", class_id, secret=class_id, own=(f"classes/{class_id}",),
                            reads=[described, limits], document=f"{self.options.state}/documents/{class_id}")

    def caddy(self) -> dict[str, Any]:
        """TLS. Its configuration is `make deploy`'s; certificates are kept in the state."""
        return {
            "image": f"{self.options.registry}caddy:{self.options.version}", "restart": "always", "user": f"{UID}:{UID}",
            "read_only": True, "cap_drop": ["ALL"], "cap_add": ["NET_BIND_SERVICE"], "tmpfs": ["/tmp:mode=1777,size=64m"],
            "security_opt": ["no-new-privileges:true"], "networks": ["edge"], "ports": [f"{self.site.port}:{self.site.port}", "80:80"],
            "volumes": [f"{self.options.tls}:/etc/caddy:ro", f"{self.options.state}/caddy:/data"],
            "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
        }


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def render(site: Site, options: argparse.Namespace) -> str:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    head = "# Rendered by `python -m hub.deployment.compose render`: edit classes.yml and render it again.\n"
    return head + yaml.dump(Renderer(site, options).document(), Dumper=Plain, sort_keys=False, width=120)


def prepare(site: Site) -> None:
    """The folders of the state with their owners, and the secrets: all for the hub, and for each other service its own."""
    own = ["hub", "homes", "exchange", "autograder", "classes", "caddy", "sockets/servers",
           *(f"{folder}/{class_.id}" for class_ in site.classes for folder in ("classes", "documents"))]
    for name in own:
        (paths.STATE / name).mkdir(parents=True, exist_ok=True)
        (paths.STATE / name).chmod(0o700)
    secret = secrets.load()
    formgraders = {class_.id: (f"service:{class_.id}", "autograder") for class_ in site.classes}
    for service, names in {"proxy": ("proxy",), EXCHANGE: (f"service:{EXCHANGE}",),
                           AUTOGRADER: (f"service:{AUTOGRADER}", "autograder"), **formgraders}.items():
        folder = paths.SECRETS / "for" / service
        folder.mkdir(parents=True, exist_ok=True)
        secrets.write(folder / "tokens.json", json.dumps({name: secret.token(name) for name in names}, indent=1).encode())
    for class_ in site.classes:
        for name, text in excerpt(paths.CLASSES_YML, class_.id).items():
            secrets.write(paths.STATE / "documents" / class_.id / name, text.encode())
    password = paths.SECRETS / "for" / AUTOGRADER / secrets.DATABASE_PASSWORD
    if not database.sqlite(site) and (given := secret.given(secrets.DATABASE_PASSWORD)):
        secrets.write(password, given.encode())
    else:
        password.unlink(missing_ok=True)
    monitoring.prepare(secret)
    for each in (paths.SECRETS, *paths.SECRETS.rglob("*")):
        each.chmod(0o700 if each.is_dir() else 0o600)
    if os.geteuid() == 0:
        give(paths.SECRETS, deep=True)
        for name in ("sockets", *own):
            give(paths.STATE / name, deep=name.startswith("documents/"))


def give(folder: Path, deep: bool = False) -> None:
    for each in (folder, *(folder.rglob("*") if deep else ())):
        os.chown(each, UID, UID, follow_symlinks=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hub.deployment.compose", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rendered = commands.add_parser("render", help="write the Compose file to standard output")
    rendered.add_argument("--version", required=True, help="tag of the site's images")
    rendered.add_argument("--state", default="/var/lib/tinytorch", help="where the host keeps the site's data")
    rendered.add_argument("--site", default="/etc/tinytorch", help="the host's folder with classes.yml and its rosters")
    rendered.add_argument("--sockets", help="the host's folder of students' sockets (default: sockets in the state)")
    rendered.add_argument("--project", default="tinytorch", help="prefix of all names")
    rendered.add_argument("--registry", default="tinytorch/", help="prefix of the images' names")
    rendered.add_argument("--publish", help="address and port of the host at which the proxy answers without TLS, 127.0.0.1:8000 for one")
    rendered.add_argument("--tls", help="the host's folder with a Caddyfile: adds the service caddy, which publishes 443 and 80")
    rendered.add_argument("--monitoring", help="the host's folder that the module `monitoring` rendered: adds Prometheus and its exporters")
    rendered.add_argument("--engine", default=ENGINE, help="the engine's socket on the host")
    rendered.add_argument("--docker-group", type=int, default=0, help="the group that owns it: stat -c %%g /var/run/docker.sock")
    rendered.add_argument("--apparmor", help="the host's AppArmor profile for the autograder, where one is needed")
    commands.add_parser("prepare", help="make folders, owners and secrets")
    options = parser.parse_args()
    try:
        site = Site.load(paths.CLASSES_YML)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    if options.command == "prepare":
        prepare(site)
        return 0
    options.sockets = options.sockets or f"{options.state}/sockets"
    sys.stdout.write(render(site, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
