"""What watches a served site: Prometheus, a probe of its front door, an exporter of the host, Grafana where its image is named.

    python -m hub.deployment.monitoring show                      what follows from classes.yml: JSON of file names and their texts
    python -m hub.deployment.monitoring render --into DIR         these files, the alert rules and the dashboards

`monitoring_services` are their entries of the Compose file, which compose.py adds to its own. Students' servers have no network
and reach none of them; nobody needs a password of theirs, since they are reached on the host's own loopback address only.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from hub import paths, secrets
from hub.accounts import roles
from hub.config.site import Site, SiteError

ROOM = paths.REPO / "monitoring"
PROMETHEUS_PORT, GRAFANA_PORT = 9090, 3000
EVERY = "15s"
# json-file without these two fills the disk in the end; supervisord rotates on a laptop (hub/up.py)
LOGGING = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
TOKEN = "for/prometheus/token"           # in the secrets folder: what Prometheus shows to hub, exchange and autograder
METRICS = "metrics"                      # folder of the state; what a backup writes there, the exporter of the host tells
CONFIG = "/etc/tinytorch-monitoring"     # where the containers see what `render` wrote
NOBODY = "65534:65534"
NODE_FLAGS = [
    "--path.rootfs=/host", "--path.procfs=/host/proc", "--path.sysfs=/host/sys", "--collector.textfile.directory=/textfile",
    "--no-collector.systemd",
    # a $ is doubled, since Compose reads a single one itself
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run|sys|var/lib/docker)(/.*)?$$"]

Targets = dict[str, str]


def targets(site: Site) -> Targets:
    """host:port of what is scraped, as Prometheus reaches it in its container."""
    return {"hub": "hub:8081", "exchange": "exchange:8003", "autograder": "autograder:8004", "node": "node-exporter:9100",
            "probe": "blackbox-exporter:9115", "prometheus": "localhost:9090"}


def prometheus(site: Site, at: Targets, token_file: str, rules: str = f"{CONFIG}/alerts.yml") -> dict[str, Any]:
    """Prometheus' configuration. The token is a file, which it reads for every scrape."""
    def job(name: str, path: str, target: str, **more: Any) -> dict[str, Any]:
        return {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [target]}], **more}

    token = {"authorization": {"type": "Bearer", "credentials_file": token_file}}
    jobs = [
        job("hub", "/hub/metrics", at["hub"], **token),
        job("exchange", f"/services/{roles.EXCHANGE}/metrics", at["exchange"], **token),
        job("autograder", f"/services/{roles.AUTOGRADER}/metrics", at["autograder"], **token),
        job("node", "/metrics", at["node"]),
        job("prometheus", "/metrics", at["prometheus"]),
    ]
    if site.url.startswith("https:"):
        jobs.append(job("probe", "/probe", at["probe"], params={"module": ["site"], "target": [f"https://caddy:{site.port}/hub/login"]},
                        scrape_interval="60s"))
    document: dict[str, Any] = {
        "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY, "external_labels": {"site": site.host}},
        "rule_files": [rules], "scrape_configs": jobs}
    if managers := site.settings.monitoring.alertmanagers:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": managers}]}]}
    return document


def blackbox(site: Site) -> dict[str, Any]:
    """How the front door is probed: the server beside, under the site's name, so that no name service is needed."""
    return {"modules": {"site": {"prober": "http", "timeout": "10s", "http": {
        "valid_status_codes": [200], "follow_redirects": False, "fail_if_not_ssl": True, "headers": {"Host": site.host},
        # an internal authority's certificate is not trusted in here; what expires is told all the same
        "tls_config": {"server_name": site.host, "insecure_skip_verify": True}, "preferred_ip_protocol": "ip4"}}}}


def grafana() -> dict[str, Any]:
    """Files by which Grafana finds Prometheus and the dashboards, by path below its provisioning folder."""
    return {
        "datasources/prometheus.yml": {"apiVersion": 1, "datasources": [
            {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy",
             "url": f"http://prometheus:{PROMETHEUS_PORT}", "isDefault": True}]},
        "dashboards/tinytorch.yml": {"apiVersion": 1, "providers": [
            {"name": "TinyTorch Hub", "type": "file", "allowUiUpdates": False, "options": {"path": f"{CONFIG}/dashboards"}}]},
    }


def files(site: Site) -> dict[str, str]:
    """The files that follow from classes.yml, by name; there is no secret in them."""
    documents = {"prometheus.yml": prometheus(site, targets(site), "/run/secrets-prometheus/token"), "blackbox.yml": blackbox(site),
                 **{f"grafana/{name}": document for name, document in grafana().items()}}
    head = "# Rendered by hub/deployment/monitoring.py: edit classes.yml and render it again.\n"
    return {name: head + yaml.safe_dump(document, sort_keys=False, width=120) for name, document in documents.items()}


def render(site: Site, folder: Path) -> list[Path]:
    """Write every file."""
    written = []
    for name, text in files(site).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        written.append(file)
    (folder / "dashboards").mkdir(exist_ok=True)
    for source in (ROOM / "alerts.yml", *sorted((ROOM / "dashboards").glob("*.json"))):
        file = folder / ("dashboards" if source.suffix == ".json" else "") / source.name
        shutil.copyfile(source, file)
        written.append(file)
    return written


def prepare(secret: secrets.Secrets) -> None:
    """The token as Prometheus reads it, and the folder for measurements that are files. Owners are the caller's to set."""
    (secret.folder / TOKEN).parent.mkdir(parents=True, exist_ok=True)
    secret.write(TOKEN, secret.service_token(roles.PROMETHEUS) + "\n")
    (secret.folder.parent / METRICS).mkdir(exist_ok=True)
    (secret.folder.parent / METRICS).chmod(0o755)            # the exporter is another user


def monitoring_services(site: Site, *, version: str, state: str = "/var/lib/tinytorch", config: str = "/opt/tinytorch/monitoring",
                        registry: str = "tinytorch/", user: int = 10000) -> dict[str, Any]:
    """Entries of the Compose file, by service; empty where monitoring is off. `config`: the host's folder that `render` wrote."""
    if not site.settings.monitoring.enabled:
        return {}

    def service(command: list[str], volumes: list[str], networks: list[str], **more: Any) -> dict[str, Any]:
        return {"image": f"{registry}monitoring:{version}", "entrypoint": [], "command": command, "user": f"{user}:{user}",
                "restart": "always", "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
                "networks": networks, "volumes": [f"{config}:{CONFIG}:ro", *volumes], "logging": LOGGING, **more}

    days = site.settings.monitoring.keep_days
    services = {
        "prometheus": service(
            ["prometheus", f"--config.file={CONFIG}/prometheus.yml", "--storage.tsdb.path=/data", f"--storage.tsdb.retention.time={days}d",
             f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}"],
            ["tinytorch-prometheus:/data", f"{state}/secrets/{TOKEN.rpartition('/')[0]}:/run/secrets-prometheus:ro"],
            ["core", "edge"], ports=[f"127.0.0.1:{PROMETHEUS_PORT}:{PROMETHEUS_PORT}"], tmpfs=["/tmp:mode=1777,size=64m"]),
        # it sees the host's files to tell how full the disks are: read-only, and as a user who owns none of them, the site's secrets least
        "node-exporter": service(["prometheus-node-exporter", *NODE_FLAGS, "--web.listen-address=0.0.0.0:9100"],
                                 ["/:/host:ro", f"{state}/{METRICS}:/textfile:ro"], ["core"], pid="host", user=NOBODY),
        "blackbox-exporter": service(["prometheus-blackbox-exporter", f"--config.file={CONFIG}/blackbox.yml",
                                      "--web.listen-address=0.0.0.0:9115"], [], ["core", "edge"], user=NOBODY),
    }
    if image := site.settings.monitoring.grafana_image:
        services["grafana"] = {
            **service([], ["tinytorch-grafana:/var/lib/grafana", f"{config}/grafana:/etc/grafana/provisioning:ro"], ["core", "edge"]),
            "image": image, "user": "472:472", "ports": [f"127.0.0.1:{GRAFANA_PORT}:{GRAFANA_PORT}"],
            # whoever reaches the host's loopback may look; nobody may change what is code
            "environment": {"GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
                            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
                            "GF_ANALYTICS_REPORTING_ENABLED": "false", "GF_ANALYTICS_CHECK_FOR_UPDATES": "false"}}
        del services["grafana"]["entrypoint"], services["grafana"]["command"]
    return services


def monitoring_volumes(site: Site) -> dict[str, Any]:
    """Named volumes of these services, for the Compose file's top level."""
    return {volume.partition(":")[0]: {"name": volume.partition(":")[0]}
            for service in monitoring_services(site, version="any").values() for volume in service["volumes"]
            if volume.startswith("tinytorch-")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hub.deployment.monitoring", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show", help="what follows from classes.yml, as JSON")
    rendered = commands.add_parser("render", help="write the configuration files")
    rendered.add_argument("--into", type=Path, required=True, metavar="DIR")
    chosen = parser.parse_args()
    try:
        site = Site.load(paths.CLASSES_YML)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(files(site) if chosen.command == "show" else [str(file) for file in render(site, chosen.into)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
