"""One student and one instructor of the site that `make up` made in this checkout; prints what they met, as JSON.

    .envs/user/bin/python -m tests.deploy.one_loop

The environment `user` is enough, so it runs on a machine with nothing else prepared.
"""

import json

from hub import paths
from tests.running import Site, solve

CLASS, ASSIGNMENT = "ml101", "02_tensor"
LOOK_AROUND = f"""
import json, os, resource
def reads(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
print(json.dumps({{
    "uid": os.getuid(), "home": os.path.expanduser("~"), "own_work": reads(os.path.expanduser("~/modules/source/{ASSIGNMENT}")),
    "site": reads({str(paths.STATE)!r}), "source": reads({str(paths.REPO / "course" / "modules")!r}),
    "solutions": reads({str(paths.BUILD / "source")!r}), "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "memory_mb": resource.getrlimit(resource.RLIMIT_DATA)[0] // 2**20, "pids": resource.getrlimit(resource.RLIMIT_NPROC)[0]}}))
"""


class Here(Site):
    """The site of this checkout, which runs already."""

    def __init__(self) -> None:
        self.state = paths.STATE
        self.port = json.loads((paths.RUN / "ports.json").read_text())["base"]
        self.url = f"http://127.0.0.1:{self.port}"


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
