"""Prints the project's dependencies, some without others, for a layer of an image each.

python docker/requirements.py --without torch transformers
python docker/requirements.py --only torch transformers --extra openvino --build cpu
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path


def name_of(requirement: str) -> str:
    """The distribution's name in a requirement, as `torch` in `torch>=2.8,<3`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def choose(requirements: list[str], only: list[str], without: list[str]) -> list[str]:
    """The requirements that are named in `only`, or not in `without`."""
    return [r for r in requirements if (name_of(r) in only if only else name_of(r) not in without)]


def main() -> None:
    """Print the requirements asked for, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--extra", nargs="*", default=[], help="optional dependencies, by the extra's name")
    parser.add_argument("--build", default="", help="local version of torch, as cpu or cu130")
    arguments = parser.parse_args()
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = [r for extra in arguments.extra for r in project["optional-dependencies"][extra]]
    for requirement in choose(project["dependencies"], arguments.only, arguments.without) + extras:
        print(requirement)
        if name_of(requirement) == "torch" and arguments.build:
            pins = re.search(r"^torch==([^\s+]+)$", Path("constraints.txt").read_text(), re.MULTILINE)
            assert pins is not None, "constraints.txt does not pin torch"
            print(f"torch=={pins[1]}+{arguments.build}")


if __name__ == "__main__":
    main()
