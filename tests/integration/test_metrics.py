"""What a running site measures: real Prometheus scrapes real endpoints, and every rule and panel finds what it asks for."""

import contextlib
import json
import re
import shutil
import subprocess
import time

import pytest
import requests
import yaml

from hub import paths
from hub.accounts import roles
from hub.config import site as site_module
from hub.deployment import monitoring
from tests.need import need

pytestmark = pytest.mark.site
# what exists only where it is made: the host's exporter (checked by its own test below), a probe, a backup
OF_ITSELF = {"up", "ALERTS"}
ELSEWHERE = ("probe_", "tinytorch_backup_")


@pytest.fixture(scope="module")
def token(site):
    return site.secret(f"service:{roles.PROMETHEUS}")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The exporter of the host, with what a backup would have written."""
    found = shutil.which("prometheus-node-exporter")
    need("the exporter of the host", found, "apt-get install prometheus-node-exporter")
    folder = tmp_path_factory.mktemp("textfile")
    (folder / "backup.prom").write_text("tinytorch_backup_last_success_timestamp_seconds 1.7e9\n")
    with listening(found, f"--collector.textfile.directory={folder}", flag="--web.listen-address") as address:
        yield address


@contextlib.contextmanager
def listening(*command, flag):
    """The program on a free loopback port; ended afterwards."""
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen([*command, f"{flag}={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://{address}/metrics", timeout=5).ok:
                    break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def prometheus(site, token, node, tmp_path_factory):
    """Prometheus on the site's configuration, with this machine's addresses; yields a function that asks it."""
    found = shutil.which("prometheus")
    need("Prometheus", found, "apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "token").write_text(token)
    person = site.person("alice")
    person.get("/hub/home")
    public = f"127.0.0.1:{site.port}"
    document = monitoring.prometheus(site_module.Site.load(site.classes_yml), {
        "hub": public, "exchange": public, "autograder": public, "node": node, "prometheus": public, "probe": ""},
        str(folder / "token"), str(paths.REPO / "monitoring" / "alerts.yml"))
    document["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
    document["scrape_configs"] = [job for job in document["scrape_configs"] if job["job_name"] != "prometheus"]
    for job in document["scrape_configs"]:
        job["scrape_interval"], job["scrape_timeout"] = "2s", "2s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    with listening(found, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                   flag="--web.listen-address") as address:
        def ask(path, **query):
            return requests.get(f"http://{address}/api/v1/{path}", params=query, timeout=30).json()["data"]

        deadline = time.monotonic() + 120
        while (time.monotonic() < deadline and len(up(ask)) < 4) or 0 in up(ask).values():
            assert time.monotonic() < deadline, [(each["labels"]["job"], each["lastError"]) for each in ask("targets")["activeTargets"]]
            time.sleep(1)
        yield ask


def up(ask):
    return {each["metric"]["job"]: int(each["value"][1]) for each in ask("query", query="up")["result"]}


def test_every_part_answers_prometheus(prometheus):
    assert up(prometheus) == {"hub": 1, "exchange": 1, "autograder": 1, "node": 1}


def named(text):
    """The metrics of an expression: words that are no function, label, keyword or number."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|(?:by|on|without)\s*\([^)]*\)', " ", text)
    words = set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*(?!\s*\()\b", bare))
    return {word for word in words if "_" in word or word in OF_ITSELF} - {
        "histogram_quantile", "max_over_time", "predict_linear"}


def test_every_metric_of_rules_and_panels_is_measured_somewhere(prometheus):
    known = set(prometheus("metadata")) | set(prometheus("label/__name__/values"))
    room = paths.REPO / "monitoring"
    rules = [rule for group in yaml.safe_load((room / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    asked = {rule["alert"]: rule["expr"] for rule in rules}
    for file in (room / "dashboards").glob("*.json"):
        asked |= {f"{file.stem}: {panel['title']} {target['refId']}": target["expr"]
                  for panel in json.loads(file.read_text())["panels"] for target in panel["targets"]}
    found = {}
    for where, expression in asked.items():
        metrics = named(expression)
        assert metrics, (where, expression)
        for metric in metrics - OF_ITSELF:
            if not metric.startswith("probe_"):
                base = re.sub(r"_(bucket|count|sum|total)$", "", metric)
                found[metric] = {metric, base, f"{base}_total"} & known
    assert all(found.values()), {metric for metric, there in found.items() if not there}
    assert len(found) > 25


def test_labels_that_rules_count_by_are_those_that_the_hub_writes(site, token):
    text = requests.get(f"{site.url}/hub/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=30).text
    assert 'jupyterhub_server_spawn_duration_seconds_count{status="failure"}' in text
    assert re.search(r'jupyterhub_request_duration_seconds_count\{code="\d+"', text)
    assert "jupyterhub_active_users" in text


def test_only_the_token_for_metrics_reads_them_and_it_reads_nothing_else(site, token):
    paths_of = ("/hub/metrics", "/services/ngshare/metrics", "/services/autograder/metrics")
    for path in paths_of:
        assert requests.get(site.url + path, timeout=30, allow_redirects=False).status_code in (401, 403), path
        bad = requests.get(site.url + path, headers={"Authorization": "Bearer nonsense"}, timeout=30, allow_redirects=False)
        assert bad.status_code in (401, 403), path
        good = requests.get(site.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert good.status_code == 200, path
        assert "alice" not in good.text
    formgrader = site.secret("service:ml101")
    other = requests.get(f"{site.url}/services/ngshare/metrics", headers={"Authorization": f"Bearer {formgrader}"}, timeout=30)
    assert other.status_code == 403
    for path in ("/hub/api/users", "/hub/api/users/alice", "/hub/api/groups", "/hub/api/proxy"):
        refused = requests.get(site.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert refused.status_code in (403, 404), path
    # ngshare believes every name that the hub knows: this one is of no course
    shown = requests.get(f"{site.url}/services/ngshare/courses", headers={"Authorization": f"token {token}"}, timeout=30)
    assert shown.json() == {"success": True, "courses": []}


def test_the_exchange_counts_what_it_answers(site, token):
    def text():
        return requests.get(f"{site.url}/services/ngshare/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=30).text

    def value(name, **labels):
        return sum(float(line.split()[-1]) for line in text().splitlines()
                   if line.startswith(name) and all(f'{key}="{wanted}"' in line for key, wanted in labels.items()))

    before = value("exchange_requests_total", kind="assignment", status="401")
    for _ in range(3):
        requests.get(f"{site.url}/services/ngshare/assignment/ml101/02_tensor", timeout=30)
        requests.get(f"{site.url}/services/ngshare/made-up-{time.time()}/ml101", timeout=30)
    assert value("exchange_requests_total", kind="assignment", status="401") == before + 3
    assert "made-up" not in text()                                   # no series of its own, whatever is asked for
    assert value("exchange_request_seconds_count", kind="assignment") >= 3
    assert value("exchange_stored_bytes", what="database") > 0
    assert value("exchange_disk_free_bytes") > 0
