"""Every module that is ready keeps the teaching standard, and the files made from all of them hold no secret."""

import subprocess
import sys

import pytest
import yaml

from course.build import editions, framework, leaks, notebooks, regions
from course.build.cells import read_cells
from course.build.check import check_module
from course.build.mutants import is_todo
from course.build.run import REPO

MODULES = [pytest.param(module, id=module.slug) for module in framework.available() if module.graded]


@pytest.mark.parametrize("module", MODULES)
def test_the_module_keeps_the_standard_and_its_wrong_solutions_die(module):
    report = check_module(module)
    assert report.errors == []
    assert report.points == report.counts.test_points
    assert len(report.wrong) >= 8 * sum(is_todo(cell) for cell in read_cells(module.source))


def test_no_file_for_students_holds_a_solution_or_a_hidden_test_of_any_module():
    hidden = leaks.secrets(cell for module in framework.available() for cell in read_cells(module.source))
    assert len(hidden) > 20 * len(MODULES)
    beside = {line.strip() for path in (REPO / "tinytorch").rglob("*.py")         # what the reference alone does faster
              for region in regions.regions(path.read_text()) for line in region.body if len(line.strip()) >= leaks.TRIVIAL}
    assert "np.divide(m, room, out=room)" in beside
    hidden |= beside
    releases = {module.slug: notebooks.text(notebooks.release_notebook(module.source)) for module in framework.available()}
    assert leaks.leaks(editions.student(releases), hidden) == []


@pytest.mark.parametrize("module", MODULES)
def test_what_module_yaml_exports_is_in_the_framework(module):
    # a student's frame defines everything, too; in a process of its own, because its rules would take the place of the real ones here
    done = subprocess.run([sys.executable, "-c", "import sys; exec(sys.stdin.read()); print(*globals())"], input=framework.stubs(module),
                          capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    namespace = done.stdout.split()
    promised = yaml.safe_load(module.source.with_name("module.yaml").read_text())["exports"]
    assert [name for name in promised if name not in namespace] == []
