"""One student and one instructor on the site that `make up` made in this checkout; prints what they met, as JSON.

    .envs/user/bin/python -m tests.deploy.one_loop

The environment `user` is enough, so it runs on a machine with nothing else prepared.
"""

import json

from autograder.sandbox.processes import bubblewrap
from hub import paths
from tests.running import Site, solve

CLASS, ASSIGNMENT = "ml101", "02_tensor"
MEMORY_MB, PIDS = 1024, 256                      # what the example says about this class
LOOK_AROUND = f"""
import json, os, subprocess, sys
def reads(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
def gets_memory(mb):                             # in a process of its own: a control group ends the one that asks for too much
    done = subprocess.run([sys.executable, "-c", f"bytearray({{mb}} * 2**20)"], capture_output=True)
    return done.returncode == 0
def gets_processes(number):
    running = []
    try:
        for _ in range(number):
            running.append(subprocess.Popen(["sleep", "60"]))
    except OSError:
        pass
    for process in running:
        process.kill()
        process.wait()
    return len(running)
print(json.dumps({{
    "uid": os.getuid(), "work": reads(os.path.expanduser("~/modules/source/{ASSIGNMENT}")), "site": reads({str(paths.STATE)!r}),
    "source": reads({str(paths.REPO / "course" / "modules")!r}), "solutions": reads({str(paths.BUILD / "source")!r}),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "half its memory": gets_memory({MEMORY_MB // 2}), "more than its memory": gets_memory({MEMORY_MB + 200}),
    "new processes": gets_processes({PIDS + 50})}}))
"""


class Here(Site):
    """The site of this checkout, which runs already."""

    def __init__(self) -> None:
        self.state = paths.STATE
        self.port = json.loads((paths.RUN / "ports.json").read_text())["base"]
        self.url = f"http://127.0.0.1:{self.port}"


def assert_isolated(seen: dict) -> None:
    """A student on an isolated site has their own work and limits and nothing else, and is graded."""
    around = seen["around"]
    assert around["work"]
    assert not [place for place in ("site", "source", "solutions") if around[place]]
    assert around["uid"] == bubblewrap.INNER_UID
    assert around["processes"] < 10
    assert around["half its memory"]
    assert not around["more than its memory"]
    assert 100 < around["new processes"] < PIDS
    assert seen["graded"], seen["said"]
    assert seen["score"] == seen["most"] > 0


def main() -> None:
    site = Here()
    grace, alice = site.person("grace"), site.person("alice")
    for step in ("assign", "release"):
        outcome = grace.formgrader(CLASS, "POST", f"assignment/{ASSIGNMENT}/{step}").json()
        assert outcome["success"], outcome
    alice.start(CLASS)
    fetched = alice.act(CLASS, "fetch", ASSIGNMENT)
    assert fetched["success"], fetched
    around = json.loads(alice.run(CLASS, LOOK_AROUND))
    solve(alice.notebook(CLASS, ASSIGNMENT), paths.BUILD / "source" / ASSIGNMENT / "tensor.ipynb")
    submitted = alice.act(CLASS, "submit", ASSIGNMENT)
    assert submitted["success"], submitted
    collected = grace.formgrader(CLASS, "POST", f"assignment/{ASSIGNMENT}/collect").json()
    assert collected["success"], collected
    graded = grace.formgrader(CLASS, "POST", f"submission/{ASSIGNMENT}/alice/autograde").json()
    [row] = [row for row in grace.formgrader(CLASS, "GET", f"submissions/{ASSIGNMENT}").json() if row["student"] == "alice"]
    alice.stop(CLASS)
    print(json.dumps({"around": around, "graded": graded["success"], "said": graded.get("log", "") + (graded.get("error") or ""),
                      "score": row["code_score"], "most": row["max_code_score"]}))


if __name__ == "__main__":
    main()
