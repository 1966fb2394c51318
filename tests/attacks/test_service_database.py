"""The service with its jobs on a PostgreSQL server: workers and the server itself are killed while jobs run, and none is lost."""

import os
import signal
import threading
import time

import pytest

from autograder.marks import client
from tests.attacks.test_jobs import until, worker_pids
from tests.attacks.test_service import TOKEN, Service, body, script


@pytest.fixture
def service(sandbox, tmp_path, jobs_address, monkeypatch):
    with (tmp_path / "log").open("wb") as log:
        monkeypatch.setattr(Service, "log", log)
        service = Service(tmp_path / "autograder", AUTOGRADER_DATABASE=jobs_address)
        monkeypatch.setenv("AUTOGRADER_URL", service.url)
        monkeypatch.setenv("AUTOGRADER_TOKEN", TOKEN)
        yield service
        service.process.terminate()
        assert service.process.wait(30) == 0
    assert not (service.state / "jobs.sqlite").exists()


def test_a_restart_of_the_database_costs_no_job_no_attempt_and_one_line_of_the_log(service, postgres_server, tmp_path):
    """While one job runs, one waits, and somebody asks for the result all the time."""
    jobs = [script(f"import time; time.sleep(3); print({number})") for number in range(3)]
    results = {}

    def wait(number):
        results[number] = client.submit(*jobs[number]).outputs["stdout"]

    asking = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for each in asking:
        each.start()
    until(lambda: service.ask("GET", f"/api/jobs/{jobs[0][0].id}")[1].get("state") == "running")
    postgres_server.stop()
    until(lambda: "cannot be used" in (tmp_path / "log").read_text())
    status, answer = service.ask("GET", "/health")
    assert (status, answer["reason"]) == (503, "the jobs' database does not answer")
    time.sleep(2)
    postgres_server.start()
    for each in asking:
        each.join(60)
    assert results == {0: b"0\n", 1: b"1\n", 2: b"2\n"}
    assert {service.ask("GET", f"/api/jobs/{job.id}")[1]["attempts"] for job, _ in jobs} == {1}
    said = [line for line in (tmp_path / "log").read_text().splitlines() if "database" in line]
    assert [("cannot be used" in line, "answers again" in line) for line in said] == [(True, False), (False, True)]
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert postgres_server.password not in (tmp_path / "log").read_text()


def test_kill_9_of_a_worker_in_the_middle_of_a_job_loses_and_repeats_nothing(service):
    jobs = [script(f"import time; time.sleep(1.5); print({number}, time.time())") for number in range(4)]
    for job, files in jobs:
        assert service.ask("POST", "/api/jobs", body(job, files))[0] == 202
    until(lambda: service.ask("GET", f"/api/jobs/{jobs[0][0].id}")[1]["state"] == "running")
    os.kill(worker_pids(service)[0], signal.SIGKILL)
    outputs = [client.submit(job, files).outputs["stdout"] for job, files in jobs]
    assert [output.split()[0] for output in outputs] == [b"0", b"1", b"2", b"3"]
    assert [client.submit(job, files).outputs["stdout"] for job, files in jobs] == outputs
    attempts = sorted(service.ask("GET", f"/api/jobs/{job.id}")[1]["attempts"] for job, _ in jobs)
    assert attempts in ([1, 1, 1, 1], [1, 1, 1, 2])                        # at most what the killed one held


def test_the_password_is_in_no_command_line_and_no_environment(service, postgres_server):
    secret = postgres_server.password.encode()
    for pid in (service.process.pid, *worker_pids(service)):
        for what in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{what}", "rb") as file:
                assert secret not in file.read()
