"""docker/environment.yml names the versions that are tested. The environment itself is not built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]


def _name(text: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", text)
    assert found is not None
    return found[0].lower().replace("_", "-")


def test_the_environment_has_every_dependency_in_the_version_of_the_constraints() -> None:
    environment = yaml.safe_load((PROJECT / "docker/environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    conda = [entry for entry in environment if isinstance(entry, str)]
    assert conda[:2] == ["python=3.11", "pip"]
    listed = [(_name(entry), entry.split("=")[-1]) for entry in (*conda[2:], *pip)]
    pinned = [line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line]
    pins = {_name(name): version for name, version in pinned}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert sorted(name for name, _ in listed) == sorted({_name(each) for each in project["dependencies"]})
    assert listed == [(name, pins[name]) for name, _ in listed]
