"""Grafana's dashboards as code: `python monitoring/dashboards.py` writes dashboards/*.json, which are committed.

A dashboard is rows of panels, a panel is a title, a unit and what to draw. Nothing here but what somebody looks at when the site
is slow, full or broken: first the people, then the parts, then the machine.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, HEIGHT = 24, 8                    # of Grafana's grid, and of one panel
SOURCE = {"type": "prometheus", "uid": "prometheus"}
NONE = "0 * sum(autograder_workers)"     # a queue in which nothing waits has no series: zero, as long as the autograder answers
DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'


def panel(title: str, unit: str, lines: dict[str, str], what: str = "", kind: str = "timeseries",
          worst: float | None = None) -> dict[str, Any]:
    """`lines`: legend -> PromQL. `what` explains the panel; from `worst` on it is drawn in red."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if worst is not None:
        steps.append({"color": "red", "value": worst})
    return {
        "title": title, "description": what, "type": kind, "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {"colorMode": "background"},
        "targets": [{"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
                    for i, (legend, expr) in enumerate(lines.items())],
    }


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    return {f"p{int(q * 100)}": f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket[5m])))" for q in (0.5, 0.95)}


def stat(title: str, unit: str, expr: str, worst: float | None = None) -> dict[str, Any]:
    return panel(title, unit, {"": expr}, kind="stat", worst=worst)


SITE = [
    [stat("Parts that answer", "none", 'sum(up{job=~"hub|exchange|autograder"})'),
     stat("Servers that run", "none", "sum(jupyterhub_running_servers)"),
     stat("Alerts", "none", 'count(ALERTS{alertstate="firing"}) or vector(0)', 1),
     stat("Last backup", "s", "time() - tinytorch_backup_last_success_timestamp_seconds", 129600)],
    [panel("Servers", "none", {"running": "sum(jupyterhub_running_servers)"}),
     panel("Time until a server is ready", "s", quantiles("jupyterhub_server_spawn_duration_seconds")),
     panel("Servers started", "none", {"{{status}}": "sum by (status) (increase(jupyterhub_server_spawn_duration_seconds_count[15m]))"},
           "Per quarter of an hour, by outcome.")],
    [panel("The hub's answers", "reqps", {"{{code}}": "sum by (code) (rate(jupyterhub_request_duration_seconds_count[5m]))"}),
     panel("Time until the hub answers", "s", quantiles("jupyterhub_request_duration_seconds")),
     panel("People active", "none", {"{{period}}": "sum by (period) (jupyterhub_active_users)"})],
]
WORK = [
    [panel("Exchange: answers", "reqps", {"{{kind}} {{status}}": "sum by (kind, status) (rate(exchange_requests_total[5m]))"}),
     panel("Exchange: time until the answer", "s", quantiles("exchange_request_seconds")),
     panel("Exchange: what is stored", "bytes", {"{{what}}": "sum by (what) (exchange_stored_bytes)", "free": "exchange_disk_free_bytes"})],
    [panel("Exchange: size of what is sent", "bytes", quantiles("exchange_request_bytes")),
     panel("Exchange: time until the hub answers it", "s", quantiles("exchange_hub_seconds"))],
    [panel("Autograder: jobs that wait", "none", {"{{class}} {{kind}}": "sum by (class, kind) (autograder_queue_length)",
                                                  "all": f"sum(autograder_queue_length) or {NONE}"}),
     panel("Autograder: the oldest of them", "s", {"{{kind}}": "max by (kind) (autograder_queue_oldest_seconds)",
                                                   "all": f"max(autograder_queue_oldest_seconds) or {NONE}"}, worst=1800),
     panel("Autograder: workers", "none", {"there are": "autograder_workers", "busy": "autograder_busy_workers"})],
    [panel("Autograder: jobs done", "none", {"{{verdict}}": "sum by (verdict) (increase(autograder_jobs_total[15m]))"},
           "Per quarter of an hour, by verdict."),
     panel("Autograder: run time", "s", quantiles("autograder_run_seconds"))],
]
HOST = [
    [panel("CPU", "percentunit", {"busy": '1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m]))'}, worst=0.95),
     panel("Memory", "bytes", {"available": "node_memory_MemAvailable_bytes", "all": "node_memory_MemTotal_bytes"}),
     panel("Disks: free", "percentunit", {"{{mountpoint}}": f"node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes"})],
    [panel("Disks: at work", "percentunit", {"{{device}}": "rate(node_disk_io_time_seconds_total[5m])"}),
     panel("Network", "Bps", {"in {{device}}": 'rate(node_network_receive_bytes_total{device!="lo"}[5m])',
                              "out {{device}}": 'rate(node_network_transmit_bytes_total{device!="lo"}[5m])'}),
     panel("Certificate: left", "s", {"": "probe_ssl_earliest_cert_expiry - time()"})],
]
DASHBOARDS = {"site": ("TinyTorch Hub: the site", SITE), "work": ("TinyTorch Hub: exchange and autograder", WORK),
              "host": ("TinyTorch Hub: the machine", HOST)}


def dashboard(uid: str, title: str, rows: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Each row's panels share its width; numbers and places follow from their order."""
    panels = []
    for y, row in enumerate(rows):
        for x, each in enumerate(row):
            width = WIDTH // len(row)
            panels.append({"id": len(panels) + 1, "gridPos": {"x": x * width, "y": y * HEIGHT, "w": width, "h": HEIGHT}, **each})
    return {"uid": f"tinytorch-{uid}", "title": title, "tags": ["tinytorch"], "schemaVersion": 39, "version": 1, "editable": False,
            "timezone": "browser", "refresh": "1m", "time": {"from": "now-6h", "to": "now"}, "templating": {"list": []},
            "annotations": {"list": []}, "panels": panels}


def files() -> dict[str, str]:
    return {f"{uid}.json": json.dumps(dashboard(uid, *what), indent=1) + "\n" for uid, what in DASHBOARDS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
