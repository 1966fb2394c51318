"""Runs a finished job again from its kept inputs and says whether the result is the same."""

import time

from autograder.jobs import Result, Verdict, differences, sha256
from autograder.quotas import Quota
from autograder.service.store import Entry, Store


class Impossible(Exception):
    """The job cannot be verified. The message says why."""


def submit(store: Store, entry: Entry, image: str, quota: Quota | None) -> Entry:
    """Queue the second run, in its owner's name and quota; returns it."""
    files = store.files(entry.id)
    if entry.state != "done":
        raise Impossible("it is not done yet: there is nothing to compare with")
    if entry.verdict in (Verdict.cancelled, Verdict.infra):
        raise Impossible("it has no result of its own: submit it again")
    if {path: sha256(content) for path, content in files.items()} != entry.job.inputs:
        raise Impossible("its inputs are not kept: those of graded submissions never are; grade it again to compare")
    id = store.accept(entry.job, files, image, id=sha256(f"{entry.id}\0{time.time()}".encode()), class_=entry.class_, owner=entry.owner,
                      tier=entry.tier, quota=quota, verifies=entry.id)
    again = store.look(id)
    assert again
    return again


def compared(store: Store, again: Entry, result: Result | None) -> tuple[bool | None, list[str]]:
    """Whether the job that this one verifies had the same result, and what differs; None while nobody can say."""
    first = store.result(again.verifies) if again.verifies and result else None
    if first is None or result is None:
        return None, []
    differs = differences(first, result)
    return not differs, differs
