"""What the autograder writes down about each submission that it graded: how its runs ended, signs of tampering, why it was regraded.

A line of JSON per grading in the course's own folder, the newest last; the autograder writes it (autograder/marks/batch.py).
"""

import json
from pathlib import Path
from typing import Any

FOLDER, FILE = ".autograder", "graded-{}.jsonl"
REASON = "AUTOGRADER_REGRADE_REASON"                # in the environment: why a submission is graded again
WORDS = {"timeout": "timed out", "cpu": "timed out", "memory": "out of memory", "pids": "too many processes", "output": "too much output",
         "disk": "disk full"}


def file(course: Path, assignment: str) -> Path:
    return course / FOLDER / FILE.format(assignment)


def entries(course: Path, assignment: str) -> list[dict[str, Any]]:
    """All gradings, the oldest first. A line that a killed process left half written is skipped."""
    found = []
    path = file(course, assignment)
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            found.append({"student": str(entry["student"]), "jobs": list(entry["jobs"]), "tampering": list(entry["tampering"]),
                          "reason": str(entry["reason"]), "by": str(entry["by"]), "when": float(entry["when"])})
        except (ValueError, KeyError, TypeError):
            continue
    return found


def outcome(entry: dict[str, Any]) -> str:
    """In a word or two how a submission's run ended, the worst first."""
    verdicts = [job["verdict"] for job in entry["jobs"]]
    if entry["tampering"]:
        return "tampered"
    return next((WORDS.get(verdict, verdict) for verdict in verdicts if verdict != "ok"), "ok")


def explanation(entry: dict[str, Any]) -> str:
    """The evidence, or the limit and by how much; empty when all went well."""
    return "; ".join([*entry["tampering"], *(job["sentence"] for job in entry["jobs"] if job["sentence"])])
