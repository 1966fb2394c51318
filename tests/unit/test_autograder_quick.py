"""`nbgrader autograde` with postponed imports: the same names, later; what a batch never uses is never imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BEGIN = "from autograder.marks import quick\nquick.postpone()\n"


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def command(*words, cwd, **more):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOGRADER_", "TINYTORCH_"))}
    return subprocess.run([sys.executable, REPO / "bin" / "nbgrader", *words], capture_output=True, text=True, cwd=cwd, timeout=120,
                          env={**env, "JUPYTER_CONFIG_DIR": str(cwd), **more})


def test_what_a_batch_needs_is_there_without_what_it_never_uses():
    loaded = json.loads(python(BEGIN + "import json, sys\nfrom nbgrader.apps.autogradeapp import AutogradeApp\n"
                               "import autograder.marks.nbgrader_plugin\nprint(json.dumps(list(sys.modules)))"))
    assert {"nbgrader.converters.autograde", "nbgrader.preprocessors.overwritecells", "nbgrader.api"} <= set(loaded)
    never = ("jupyter_server", "bleach", "setuptools.dist", "requests", "nbgrader.server_extensions", "nbgrader.apps.formgradeapp",
             "nbconvert.exporters.html", "arrow", "rfc3987_syntax")
    assert [name for name in loaded if name.startswith(never)] == []


NAMES = [("nbgrader", "__version__"), ("nbgrader.apps", "NbGraderAPI"), ("nbgrader.apps", "__all__"),
         ("nbgrader.auth", "JupyterHubAuthPlugin"), ("nbgrader.exchange", "ExchangeError"), ("nbgrader.exchange", "abc"),
         ("nbgrader.preprocessors", "Execute"), ("nbgrader.converters", "GenerateFeedback"),
         ("nbconvert", "HTMLExporter"), ("nbconvert", "exporters"),
         ("nbconvert.filters", "markdown2html"), ("nbconvert", "nothing"), ("nbgrader", "_jupyter_server_extension_points")]
LOOK = f"""import importlib, json, types
def said(value):
    if isinstance(value, types.ModuleType): return value.__name__
    return f"{{getattr(value, '__module__', '')}} {{getattr(value, '__name__', value)}}"
found = []
for package, name in {NAMES}:
    found.append(said(getattr(importlib.import_module(package), name, "missing")))
    names = dict()
    try: exec(f"from {{package}} import {{name}} as value", names)
    except ImportError as error: names["value"] = str(error)
    found.append(said(names["value"]))
print(json.dumps(found))"""


def test_every_name_is_the_one_that_it_is_without():
    assert json.loads(python(BEGIN + LOOK)) == json.loads(python(LOOK))


def test_archives_are_still_unpacked(tmp_path):
    (tmp_path / "a.txt").write_text("in it")
    python(BEGIN + f"""import shutil
from nbgrader.utils import unpack_archive
shutil.make_archive({str(tmp_path / 'packed')!r}, 'zip', {str(tmp_path)!r}, 'a.txt')
unpack_archive({str(tmp_path / 'packed.zip')!r}, {str(tmp_path / 'out')!r})""")
    assert (tmp_path / "out" / "a.txt").read_text() == "in it"


def test_other_commands_are_nbgraders_own(tmp_path):
    assert "Subcommands" in command("--help", cwd=tmp_path).stdout
    assert "--create" in command("autograde", "--help", cwd=tmp_path).stdout


def test_the_exit_code_and_the_last_line_arrive(tmp_path):
    failed = command("autograde", "nothing", "--course-dir", str(tmp_path), cwd=tmp_path)
    assert failed.returncode == 1
    assert "No notebooks were matched" in failed.stderr
    (tmp_path / "nbgrader_config.py").write_text("raise RuntimeError('half a configuration')")
    broken = command("autograde", "ps1", cwd=tmp_path, TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR="1")
    assert broken.returncode == 1
    assert "half a configuration" in broken.stderr
