"""In the sandbox: a checkpoint's capability tests against the exported files in the work folder.

Leaves result.json: whether it is passed and, per capability, whether it is and why not. Times go to stdout only, so that the
same files give the same result.json. The tests run beside the student's code: good for a learner, no basis for marks.
"""

import json
import sys
from pathlib import Path

from course.checkpoints import run
from course.curriculum import UnknownName, find_checkpoint


def main(number: str) -> int:
    try:
        checkpoint = find_checkpoint(number)
    except UnknownName as error:
        sys.exit(str(error))
    if not checkpoint.ready:
        sys.exit(f"checkpoint {checkpoint.number} ({checkpoint.name}) is not in this course yet")
    print(f"{checkpoint.number} {checkpoint.question}")
    results = []
    for result in run.run(checkpoint, Path.cwd()):
        print(f"{'passed' if result.passed else 'FAILED'}  {result.capability}  {result.seconds * 1000:.0f} ms")
        for line in result.message.splitlines():
            print(f"        {line}")
        results.append({"capability": result.capability, "passed": result.passed, "message": result.message})
    failed = [one["capability"] for one in results if not one["passed"]]
    passed = bool(results) and not failed
    print("Yes" if passed else f"Not yet: {len(failed)} of {len(results)} fail")
    Path("result.json").write_text(json.dumps({
        "checkpoint": checkpoint.number, "question": checkpoint.question, "passed": passed, "failed": failed,
        "capabilities": results, "tests_run": "beside the student's code"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
