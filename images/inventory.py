"""What an image holds, as JSON: runs inside of it with any Python 3, and asks the tools that installed things.

    docker run --rm -i --network none --entrypoint python3 IMAGE - <images/inventory.py
"""

import email.parser
import glob
import json
import os
import platform
import subprocess

FIELDS = "${Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def debian():
    """Packages of the distribution, by its own database."""
    listed = subprocess.run(["dpkg-query", "-W", "-f", FIELDS], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, version, architecture, source = line.split("\t")
        yield {"kind": "deb", "name": name, "version": version, "architecture": architecture, "source": source, "licence": ""}


def python():
    """Python packages of every environment, by the metadata that their installer left."""
    for file in sorted(glob.glob("/opt/envs/**/*.dist-info/METADATA", recursive=True)):
        with open(file, encoding="utf-8", errors="replace") as lines:
            said = email.parser.Parser().parse(lines, headersonly=True)
        licence = said.get("License-Expression", "")
        yield {"kind": "pypi", "name": said["Name"], "version": said["Version"], "licence": licence, "environment": file.split("/")[3]}


def node():
    """Packages of npm, wherever one lies in another's folder."""
    for file in sorted(glob.glob("/opt/envs/**/node_modules/**/package.json", recursive=True)):
        parts = file.split("/node_modules/")[-1].split("/")
        if len(parts) != (3 if parts[0].startswith("@") else 2):
            continue                                  # a package's own inner file, no package
        with open(file, encoding="utf-8") as text:
            said = json.load(text)
        if said.get("version"):
            licence = said.get("license", "")
            yield {"kind": "npm", "name": said["name"], "version": said["version"], "environment": file.split("/")[3],
                   "licence": licence if isinstance(licence, str) else licence.get("type", "")}


def system():
    """The distribution's name and version."""
    with open("/etc/os-release", encoding="utf-8") as lines:
        said = dict(line.rstrip().replace('"', "").split("=", 1) for line in lines if "=" in line)
    with open("/etc/debian_version", encoding="utf-8") as text:
        return {"name": said["ID"], "version": text.read().strip(), "title": said["PRETTY_NAME"]}


def main():
    packages = [*debian(), *python(), *node()]
    print(json.dumps({"system": system(), "python": platform.python_version(), "machine": os.uname().machine, "packages": packages}))


if __name__ == "__main__":
    main()
