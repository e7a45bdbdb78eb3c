"""Source packages of Debian, fetched by a sources list of our own: the machine's lists stay as they are."""

import hashlib
import os
import shlex
import subprocess


class SourceError(Exception):
    """The source could not be had, or is not what we know."""


def run(command, log, **options):
    """Runs a command with its output appended to a log file."""
    with open(log, "ab") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise SourceError(f"{shlex.join(map(str, command))}: status {done.returncode}, see {log}")


def fetch(out, package, archive, digest):
    """The file `archive` of a source package in `out`, a directory; `digest` is its SHA-256."""
    path = out / archive
    if not path.exists():
        apt = out / "apt"
        (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
        (apt / "sources.list").write_text(f"deb-src {mirror} bookworm main\n")
        settings = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::Lists": apt / "lists",
            "APT::Get::List-Cleanup": 0,
            "Dir::Cache::srcpkgcache": "",
            "Dir::Cache::pkgcache": "",
            "APT::Sandbox::User": "root",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        for step in (["update"], ["source", "--tar-only", package]):
            run(["apt-get", *options, "-q", *step], apt / "log", cwd=out)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise SourceError(f"{path} is not what we know: delete it to fetch it again")
    return path
