"""Monitoring: rules that fire, dashboards in step, a configuration that Prometheus takes, services that may do little."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hub import paths, secrets
from hub.config.site import Site
from hub.deployment import monitoring
from monitoring import dashboards
from tests.need import need

ROOM = paths.REPO / "monitoring"


@pytest.fixture
def promtool():
    found = shutil.which("promtool")
    need("promtool", found, "apt-get install prometheus")

    def run(*words, cwd=ROOM):
        return subprocess.run([found, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=240)
    return run


def site(folder: Path, extra: str = "") -> Site:
    example = Site.example_path
    shutil.copytree(example.parent / "rosters", folder / "rosters", dirs_exist_ok=True)
    text = example.read_text().replace("http://127.0.0.1:8000", "https://hub.example.org")
    (folder / "classes.yml").write_text(text.replace("    keep_days: 30", f"    keep_days: 45{extra}"))
    return Site.load(folder / "classes.yml")


@pytest.mark.parametrize("file", ["alerts_test.yml", "alerts_slow_test.yml"])
def test_every_alert_fires_when_it_should_and_not_beside_it(promtool, file):
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways_and_says_what_to_do():
    tests = [test for file in ("alerts_test.yml", "alerts_slow_test.yml") for test in yaml.safe_load((ROOM / file).read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    rules = [rule for group in yaml.safe_load((ROOM / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        mine = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]]
        assert set(mine) == {True, False}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "fix"}


def test_the_committed_dashboards_are_in_step():
    committed = {file.name: file.read_text() for file in (ROOM / "dashboards").iterdir()}
    assert committed == dashboards.files(), "run: python monitoring/dashboards.py"


def test_dashboards_are_whole_and_draw_what_prometheus_can_compute(promtool, tmp_path):
    rules = []
    for file in (ROOM / "dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        taken = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, f"{file.name}: {panel['title']} lies on another panel"
            assert at["x"] + at["w"] <= 24
            taken |= cells
            assert panel["type"] in ("timeseries", "stat")
            assert [target["refId"] for target in panel["targets"]] == [chr(65 + i) for i in range(len(panel["targets"]))]
            for target in panel["targets"]:
                used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                by = re.search(r"by \(([^)]*)\)", target["expr"])
                assert not by or used <= set(re.split(r",\s*", by[1])), target
                rules.append({"record": f"check:{len(rules)}", "expr": target["expr"]})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_prometheus_takes_the_configuration(promtool, tmp_path):
    made = site(tmp_path, "\n    alertmanagers: [alerts.example.org:9093]")
    monitoring.render(made, tmp_path / "out")
    text = (tmp_path / "out" / "prometheus.yml").read_text()
    (tmp_path / "out" / "token").write_text("x")
    (tmp_path / "out" / "prometheus.yml").write_text(text.replace(monitoring.CONFIG, str(tmp_path / "out")).replace(
        "/run/secrets-prometheus", str(tmp_path / "out")))
    done = promtool("check", "config", tmp_path / "out" / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 rules found" in done.stdout
    scraped = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert set(scraped) == {"hub", "exchange", "autograder", "node", "prometheus", "probe"}
    assert all("authorization" in scraped[name] for name in ("hub", "exchange", "autograder"))
    assert not any("authorization" in scraped[name] for name in ("node", "prometheus", "probe"))      # the token goes to whom it is for
    before = {file: file.read_bytes() for file in (tmp_path / "again").rglob("*")}
    assert not before
    monitoring.render(made, tmp_path / "again")
    assert (tmp_path / "again" / "prometheus.yml").read_text() == text


def test_the_probe_is_understood(tmp_path):
    found = shutil.which("prometheus-blackbox-exporter")
    need("the probe", found, "apt-get install prometheus-blackbox-exporter")
    monitoring.render(site(tmp_path), tmp_path / "out")
    done = subprocess.run([found, f"--config.file={tmp_path / 'out' / 'blackbox.yml'}", "--config.check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_services_may_do_little_and_hold_no_secret(tmp_path):
    made = site(tmp_path, "\n    grafana_image: grafana/grafana-oss:11.2.0")
    services = monitoring.monitoring_services(made, version="1")
    assert set(services) == {"prometheus", "node-exporter", "blackbox-exporter", "grafana"}
    for name, service in services.items():
        assert service["user"] not in ("", "0:0")
        assert (service["read_only"], service["cap_drop"], service["restart"]) == (True, ["ALL"], "always")
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"] == monitoring.LOGGING                     # nothing writes without end
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not any("docker.sock" in volume for volume in service["volumes"])
        assert all(volume.endswith((":ro", "/data", "/var/lib/grafana")) for volume in service["volumes"]), name
    assert [name for name, service in services.items() if any("secrets" in volume for volume in service["volumes"])] == ["prometheus"]
    assert services["node-exporter"]["user"] != services["prometheus"]["user"]       # it sees the host's files, and must own none
    assert all("$" not in word.replace("$$", "") for service in services.values() for word in service.get("command", []))
    assert "--storage.tsdb.retention.time=45d" in services["prometheus"]["command"]
    assert monitoring.monitoring_volumes(made).keys() == {"tinytorch-prometheus", "tinytorch-grafana"}
    watched = made.settings.monitoring.model_copy(update={"enabled": False})
    off = made.model_copy(update={"settings": made.settings.model_copy(update={"monitoring": watched})})
    assert monitoring.monitoring_services(off, version="1") == {}


def test_the_token_is_a_private_file_and_the_service_s_own(tmp_path):
    (tmp_path / "secrets").mkdir()
    secret = secrets.Secrets(tmp_path / "secrets", {})
    monitoring.prepare(secret)
    file = tmp_path / "secrets" / "for" / "prometheus" / "token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() == secret.tokens["service:prometheus"]
    assert (tmp_path / "metrics").is_dir()
    monitoring.prepare(secret)
    assert file.read_text().strip() == secret.tokens["service:prometheus"]
