"""What others follow of a site, as plain documents: the courses, the exchange, the autograder."""

from datetime import UTC
from typing import Any

from course import curriculum
from hub.config.site import Site


def courses(site: Site) -> list[dict[str, Any]]:
    """What hub/courses.py makes courses of, as JSON can hold it: the environment `user` cannot read classes.yml itself."""
    return [{
        "id": class_.id,
        "students": [{"id": s.username, "first_name": s.first_name, "last_name": s.last_name, "email": s.email} for s in class_.students],
        "due": {m.slug: due.astimezone(UTC).isoformat() for m in curriculum.modules() if (due := class_.due(m))},
    } for class_ in site.classes]


def exchange(site: Site) -> dict[str, Any]:
    """What the exchange follows: per class its staff, its students, and when an assignment stops taking submissions."""
    people = site.people()

    def person(name: str) -> dict[str, str]:
        known = people.get(name)
        return {"username": name, **{f: (getattr(known, f, None) or "") for f in ("first_name", "last_name", "email")}}

    return {class_.id: {
        # the formgrader's token is that of a service named like the class, so the class teaches itself
        "instructors": [person(name) for name in (*class_.staff, class_.id)],
        "students": [person(student.username) for student in class_.students],
        "closes": {m.slug: due.astimezone(UTC).isoformat() for m in curriculum.modules()
                   if class_.late == "refuse" and (due := class_.due(m))},
    } for class_ in site.classes}


def quotas(site: Site) -> dict[str, Any]:
    """What the autograder follows: per class what its students may ask for, as autograder.quotas.Quota has it."""
    return {class_.id: {
        "jobs_per_day": asked.jobs_per_day, "cpu_seconds_per_day": 60 * asked.cpu_minutes_per_day, "queued": asked.queued,
        "parallel": asked.parallel, "cpu_seconds": 60 * asked.job_minutes, "memory_mb": asked.memory_mb, "keep_days": asked.keep_days,
    } for class_ in site.classes for asked in [class_.autograder]}
