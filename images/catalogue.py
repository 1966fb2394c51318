"""Which images there are: their names, what each is for, and what it stands on."""

from dataclasses import dataclass

PREFIX = "tinytorch"
OWN_BASE = f"{PREFIX}/debian:bookworm"       # what `make base-image` makes


@dataclass(frozen=True)
class Kind:
    """One image of the Dockerfile; `sources`: it holds the modules' solutions and hidden tests."""

    name: str
    title: str
    description: str
    user: str = "10000:10000"
    sources: bool = False

    def tag(self, version: str) -> str:
        return f"{PREFIX}/{self.name}:{version}"


KINDS = (
    Kind("base", "TinyTorch base", "Python, an init and certificates: what every other image stands on"),
    Kind("student", "TinyTorch student server", "JupyterLab, nbgrader, tito and the student edition of the framework", "10001:10001"),
    Kind("hub", "TinyTorch hub", "JupyterHub with the site's pages, roles and spawner"),
    Kind("exchange", "TinyTorch exchange", "ngshare: hands out assignments and takes in submissions"),
    Kind("proxy", "TinyTorch proxy", "configurable-http-proxy: the one way in"),
    Kind("autograder", "TinyTorch autograder", "runs students' code in sandboxes and decides results", sources=True),
    Kind("grader", "TinyTorch formgrader", "the grading pages of one class, with the course's sources", sources=True),
    Kind("caddy", "TinyTorch front", "Caddy: HTTPS in front of the proxy"),
    Kind("monitoring", "TinyTorch monitoring", "Prometheus, its exporter of the host and its probe"),
)
