"""What a site is: classes.yml and its rosters, checked, as Python objects. All else about a site follows from them."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, WithJsonSchema

from hub import paths
from hub.config import rules
from hub.config.conflicts import Rosters, class_entries, conflicts
from hub.config.document import Document
from hub.config.explain import explain
from hub.config.people import HEADER, Person, Roster, Student
from hub.config.problems import Problem, SiteError, Wrong, shown_path
from hub.config.sections import Image, Label, Section, UserName, text
from hub.config.switches import Database, Email, Lti13, Monitoring, Oidc
from hub.config.tls import Tls

if TYPE_CHECKING:
    from course.curriculum import Module

__all__ = ["Class", "Person", "Site", "SiteError", "Student"]

END_OF_DAY = time(23, 59)


def _size(least: str) -> tuple:
    def rule(value: object) -> object:
        if rules.size_mb(value) < rules.size_mb(least):
            raise Wrong(f"must be at least {least}", f"write {least} or more")
        return value
    return BeforeValidator(rule), WithJsonSchema({"type": "string", "pattern": rules.SIZE})


ClassId = Annotated[str, BeforeValidator(rules.class_id), WithJsonSchema({"type": "string", "pattern": rules.CLASS})]
Url = Annotated[str, *text(rules.url, pattern=r"^https?://[^/?#@\s]+/?$")]
TimeZone = Annotated[str, *text(rules.time_zone)]
HostName = Annotated[str, *text(rules.host_name, pattern=rules.HOST)]
ModuleName = Annotated[str, *text(rules.graded_module)]
Memory = Annotated[str, *_size("256M")]
Disk = Annotated[str, *_size("100M")]
Day = Annotated[date, BeforeValidator(rules.day), WithJsonSchema({"type": "string", "pattern": rules.DATE})]
Moment = Annotated[
    datetime, BeforeValidator(rules.moment), WithJsonSchema({"type": "string", "pattern": rules.MOMENT})]


class Limits(Section):
    """What one student's server of this class may use."""

    cpu: float = Field(default=1, ge=0.1, le=128, examples=[1], description=(
        "CPU cores. One trains every network of the course; with more, one student slows down the others."))
    memory: Memory = Field(default="1G", examples=["1G"], description=(
        "Memory, in M or G (1024-based). JupyterLab and a notebook take about 0.3G; a leak ends its own server only."))
    pids: int = Field(default=256, ge=64, le=32768, examples=[256], description=(
        "Processes and threads. Some notebooks with their threads need fewer than 100; a fork bomb ends here."))
    disk: Disk = Field(default="2G", examples=["2G"], description=(
        "Size of the home, in M or G. CIFAR-10 takes 0.4G; one student's files must not fill the disk of the site."))
    network: Literal["none", "internet"] = Field(default="none", examples=["none"], description=(
        "`none`: the hub's own services only, so that work is done here. `internet`: whatever is public, by HTTPS."))
    hosts: list[HostName] = Field(default_factory=list, examples=[["packages.example.org"]], description=(
        "Hosts that may be reached by HTTPS though `network` is `none`. None by default: what the course needs is in the image."))

    @property
    def reaches_out(self) -> bool:
        """Whether anything beyond the hub can be reached."""
        return self.network != "none" or bool(self.hosts)

    @property
    def memory_mb(self) -> int:
        return rules.size_mb(self.memory)

    @property
    def disk_mb(self) -> int:
        return rules.size_mb(self.disk)


class Autograder(Section):
    """What one class may ask of the autograder."""

    jobs_per_day: int = Field(default=20, ge=1, le=100_000, examples=[20], description=(
        "Jobs of one student in 24 hours. Enough to try again after mistakes, too few to guess hidden tests by trial."))
    parallel: int = Field(default=2, ge=1, le=1000, examples=[2], description=(
        "Students' jobs of this class at the same time. Two leave a laptop usable, and room for grading and the other classes."))
    queued: int = Field(default=5, ge=1, le=1000, examples=[5], description=(
        "Jobs of one student that wait or run. Nobody fills the queue; who has more to do waits for the first to end."))
    cpu_minutes_per_day: int = Field(default=60, ge=1, le=100_000, examples=[60], description=(
        "CPU time of one student's jobs in 24 hours. A CIFAR-10 training to 75 % takes about four minutes."))
    job_minutes: int = Field(default=15, ge=1, le=1440, examples=[15], description=(
        "CPU time of one job. What has not ended by then is stopped; nobody's training keeps the others waiting for hours."))
    memory: Memory = Field(default="2G", examples=["2G"], description=(
        "Memory of one job, in M or G (1024-based). CIFAR-10 as floats takes 1.5G with a small network; the course's recipes take half."))
    keep_days: int = Field(default=14, ge=1, le=3650, examples=[14], description=(
        "Days after which a finished job and its outputs are removed. What is to stay is fetched by then."))

    @property
    def memory_mb(self) -> int:
        return rules.size_mb(self.memory)


class Class(Section):
    """One running of the course, with its students."""

    id: ClassId = Field(examples=["ml101"], description=(
        "Part of URLs and folders, and nbgrader's course id. Homes and marks hang on it, so it never changes."))
    title: Label = Field(examples=["Machine learning systems"], description="What people see.")
    plan: Literal[4, 8, 16] = Field(default=16, examples=[16], description=(
        "Weeks in which the course is taught; says in which week each module is due. 16 leaves the most time."))
    start: Day | None = Field(default=None, examples=["2026-09-07"], description=(
        "First day of week 1. Without it nothing is due except what `due` names: nothing is late by accident."))
    due_dates: dict[ModuleName, Moment] = Field(
        default_factory=dict, alias="due", examples=[{"02_tensor": "2026-09-20T23:59"}], description=(
            "Due dates that differ from the plan's, by module. Without a time zone the site's is meant, without a time"
            " the end of the day. None by default: the plan is enough."))
    late: Literal["accept", "refuse"] = Field(default="accept", examples=["accept"], description=(
        "What happens to a submission after its due date. `accept`: it is marked as late, and nobody's work is lost."))
    instructors: list[UserName] = Field(min_length=1, examples=[["grace"]], description=(
        "User names of those who release, grade and return. At least one: otherwise nobody could."))
    graders: list[UserName] = Field(default_factory=list, examples=[["gus"]], description=(
        "User names of those who help to grade. Nobody by default: they see every submission."))
    roster: Label = Field(examples=["rosters/ml101.csv"], description=(
        f"The students: a CSV file with the columns {HEADER}, relative to this file. Nobody else enters the class."))
    image: Image = Field(default="default", examples=["default"], description=(
        "Container image of the students' servers. `default` is the site's own: no solution and no hidden test in it."))
    limits: Limits = Field(default=Limits(), examples=[{"cpu": 1, "memory": "1G"}], description=(
        "What one student's server may use. Never without limits: one server must not take the machine."))
    autograder: Autograder = Field(default=Autograder(), examples=[{"jobs_per_day": 20}], description=(
        "What the class may ask of the autograder. Never without limits: one class must not starve another."))
    solutions: Literal["hidden", "after_due", "open"] = Field(default="hidden", examples=["hidden"], description=(
        "When students get the reference solution of a module: never, after its due date, or from the start. `hidden`,"
        " since a solution that is out cannot be taken back."))

    _students: tuple[Student, ...] = PrivateAttr(())
    _zone: ZoneInfo = PrivateAttr(ZoneInfo("UTC"))

    @property
    def students(self) -> list[Student]:
        """Who is on the roster, in its order."""
        return list(self._students)

    @property
    def staff(self) -> list[str]:
        """User names of instructors and graders."""
        return [*self.instructors, *self.graders]

    def due(self, module: "Module | str") -> datetime | None:
        """When a module is due, with time zone; None if it never is. A plan's week ends on its seventh day at 23:59."""
        from course.curriculum import due_week, find_module

        if isinstance(module, str):
            module = find_module(module)
        named = self.due_dates.get(module.slug)
        if named is not None:
            return named if named.tzinfo else named.replace(tzinfo=self._zone)
        week = due_week(self.plan, module)
        if self.start is None or week is None:
            return None
        return datetime.combine(self.start + timedelta(days=7 * week - 1), END_OF_DAY, self._zone)

    def opened(self, now: datetime) -> "list[Module]":
        """Modules whose reference solution its students may have at that time: one bad week does not end the course."""
        from course.curriculum import modules

        if self.solutions == "hidden":
            return []
        ready = [module for module in modules() if module.ready and module.export]
        return [module for module in ready if self.solutions == "open" or ((due := self.due(module)) is not None and due < now)]


class Settings(Section):
    """What holds for all classes."""

    title: Label = Field(default="TinyTorch Hub", examples=["TinyTorch Hub"], description="The name on every page.")
    url: Url = Field(default="http://127.0.0.1:8000", examples=["http://127.0.0.1:8000"], description=(
        "Where people reach the site. This machine only by default: without TLS anybody on the way reads passwords."))
    subdomains: bool = Field(default=False, examples=[True], description=(
        "Whether each person's servers and each formgrader have a name of their own below the site's, so that browsers keep them apart:"
        " alice.hub.example.org. Off by default: it needs a wildcard in the DNS and in the certificate (*.hub.example.org)."))
    timezone: TimeZone = Field(default="UTC", examples=["Europe/Berlin"], description=(
        "Whose 23:59 a due date means. UTC by default: the same moment on every machine."))
    sign_in: Literal["native", "oidc", "lti13"] = Field(default="native", examples=["native"], description=(
        "How people prove who they are. `native`: passwords, of which the hub itself keeps only hashes; nothing else is needed."
        " `oidc`: accounts of the university. `lti13`: a link in a learning platform. Only who is in this file or a roster enters."))
    first_password: Literal["auto", "link", "generated"] = Field(default="auto", examples=["auto"], description=(
        "How people get their first password with `sign_in: native`. `link`: they choose it behind a link that holds once and for a"
        " few days. `generated`: passwords in a file, for a demonstration. `auto`: links where the site is served over https."))
    emails: dict[UserName, Email] = Field(default_factory=dict, examples=[{"grace": "grace@example.org"}], description=(
        "E-mail addresses of admins, instructors and graders; those of students stand in the rosters. Empty by default: only"
        " `match: email` and the list of links need them."))
    oidc: Oidc | None = Field(default=None, examples=[{"issuer": "https://login.example.org", "client_id": "tinytorch-hub"}],
                              description="The university's sign-in service. Needed with `sign_in: oidc` only.")
    lti13: Lti13 | None = Field(default=None, examples=[{"issuer": "https://moodle.example.org", "client_id": "A1b2C3d4E5f6G7h"}],
                                description="The learning platform. Needed with `sign_in: lti13` only.")
    database: Database = Field(default="sqlite", examples=["postgresql://tinytorch@db.example.org/hub"], description=(
        "Where the hub keeps accounts and servers, and the autograder its jobs. `sqlite`: files, which every backup holds. PostgreSQL's"
        " password is no part of the address: it stands in `database_password` in the secrets folder."))
    tls: Tls = Field(default=Tls(), examples=[{"certificates": "internal"}], description=(
        "Certificate and web server of a deployed site. Automatic certificates by default; a site on a laptop has none of it."))
    monitoring: Monitoring = Field(default=Monitoring(), examples=[{"keep_days": 30}], description=(
        "What watches a served site. On by default; a site on a laptop has none."))
    admins: list[UserName] = Field(default_factory=list, examples=[["ada"]], description=(
        "User names of those who may do everything on the hub. Nobody by default: no class needs it."))
    idle_minutes: int = Field(default=60, ge=5, le=10080, examples=[60], description=(
        "A server whose kernels and pages are idle that long is stopped; files stay. An hour outlasts a lunch break."))


class Site(Section):
    """A TinyTorch Hub site and its classes (classes.yml)."""

    settings: Settings = Field(default=Settings(), alias="site", examples=[{"title": "TinyTorch Hub"}], description=(
        "What holds for all classes. Left out, it is a site for this machine only."))
    classes: list[Class] = Field(min_length=1, examples=[[{"id": "ml101"}]], description="Each running of the course.")

    example_path: ClassVar[Path] = paths.REPO / "hub" / "example" / "classes.yml"

    @classmethod
    def load(cls, path: Path | str) -> "Site":
        """Read classes.yml and the rosters that it names; SiteError lists everything that is wrong with them."""
        path = Path(path)
        document = _read(path)
        rosters, problems = _rosters(document, path.parent)
        for roster in rosters.values():
            problems += roster.problems
        problems += [*document.problems, *conflicts(document, rosters)]
        try:
            site = cls.model_validate(document.data)
        except ValidationError as error:
            raise SiteError(_in_order([*problems, *explain(error, document, cls)], document.shown)) from None
        if problems:
            raise SiteError(_in_order(problems, document.shown))
        for i, class_ in enumerate(site.classes):
            class_._students = tuple(rosters[i].students)
            class_._zone = ZoneInfo(site.timezone)
        return site

    @staticmethod
    def schema() -> dict[str, Any]:  # type: ignore[override]
        """The JSON schema (draft 2020-12) of classes.yml."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Site.model_json_schema()}

    @property
    def title(self) -> str:
        return self.settings.title

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return self.settings.url

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or {"http": 80, "https": 443}[parts.scheme]

    @property
    def timezone(self) -> str:
        return self.settings.timezone

    @property
    def admins(self) -> list[str]:
        return list(self.settings.admins)

    @property
    def database(self) -> str:
        """`sqlite`, or the address of PostgreSQL without a password."""
        return self.settings.database

    @property
    def invites(self) -> bool:
        """Whether people choose their first password behind a link, instead of being given one."""
        kind = self.settings.first_password
        return self.settings.sign_in == "native" and (kind == "link" or (kind == "auto" and self.url.startswith("https:")))

    @property
    def provider(self) -> Oidc | Lti13 | None:
        """Who vouches for people; None where they have passwords here."""
        return {"oidc": self.settings.oidc, "lti13": self.settings.lti13}.get(self.settings.sign_in)

    @property
    def idle_minutes(self) -> int:
        return self.settings.idle_minutes

    def class_(self, id: str) -> Class:
        """The class of that id; KeyError if there is none."""
        for class_ in self.classes:
            if class_.id == id:
                return class_
        raise KeyError(f"there is no class {id!r}; there are {', '.join(c.id for c in self.classes)}")

    def people(self) -> dict[str, Person]:
        """Everybody with an account, by user name: admins, staff, students."""
        emails = self.settings.emails
        people = {name: Person(name, email=emails.get(name, ""), admin=True) for name in self.admins}
        for class_ in self.classes:
            for name in class_.staff:
                people.setdefault(name, Person(name, email=emails.get(name, ""))).staff_of.append(class_.id)
            for row in class_.students:
                known = people.get(row.username, Person(row.username))
                people[row.username] = replace(      # what one roster leaves empty comes from another
                    known, first_name=known.first_name or row.first_name, last_name=known.last_name or row.last_name,
                    email=known.email or row.email, student_of=[*known.student_of, class_.id])
        return dict(sorted(people.items()))

    def accounts(self) -> dict[str, Person]:
        """Those people, and the account with which a deployment tries itself out: a student of every class, in nobody's roster."""
        return {**self.people(), rules.CHECK: Person(rules.CHECK, student_of=[class_.id for class_ in self.classes])}


def _read(path: Path) -> Document:
    """The YAML file as data; a problem that leaves nothing to check further is raised at once."""
    shown = shown_path(path)
    copy = f"start from the example: cp -r {shown_path(Site.example_path.parent)}/. {shown_path(path.parent)}"
    try:
        document = Document(path)
    except FileNotFoundError:
        raise SiteError([Problem(shown, 0, "file", "(missing)", "there is no such file", copy)]) from None
    except OSError as error:
        what, fix = f"cannot be read ({error.strerror})", "name a YAML file that you may read"
        raise SiteError([Problem(shown, 0, "file", "(unreadable)", what, fix)]) from None
    if document.data is None:
        raise SiteError(document.problems or [Problem(shown, 1, "file", "(empty)", "there is nothing in it", copy)])
    return document


def _rosters(document: Document, folder: Path) -> tuple[Rosters, list[Problem]]:
    """The rosters that can be read, by index of their class, and a problem for each one that cannot."""
    rosters: Rosters = {}
    problems: list[Problem] = []
    for i, entry in class_entries(document):
        try:
            named = rules.label(entry.get("roster"))
            rosters[i] = Roster(folder / named)
        except Wrong:
            continue                           # told where single values are checked
        except FileNotFoundError:
            what = f"there is no such file ({shown_path(folder / named)})"
            fix = f"correct the path, or make the file with {HEADER} as its first line"
            problems.append(document.problem(("classes", i, "roster"), named, what, fix))
        except OSError as error:
            what, fix = f"cannot be read ({error.strerror})", "name a CSV file that you may read"
            problems.append(document.problem(("classes", i, "roster"), named, what, fix))
    return rosters, problems


def _in_order(problems: list[Problem], first: str) -> list[Problem]:
    """As one reads: classes.yml before the rosters, and each from top to bottom."""
    return sorted(problems, key=lambda problem: (problem.file != first, problem.file, problem.line))
