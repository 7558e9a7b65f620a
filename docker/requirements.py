"""Print a part of the project's dependencies, so that each layer of an image can install its own part.

python docker/requirements.py --without torch transformers
python docker/requirements.py --only torch transformers --extra openvino --build cpu
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path


def name_of(requirement: str) -> str:
    """Return the name of a requirement's distribution, for example `torch` for `torch>=2.8,<3`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def choose(requirements: list[str], only: list[str], without: list[str]) -> list[str]:
    """Return the requirements named in `only`. If `only` is empty, return all except those named in `without`."""
    return [r for r in requirements if (name_of(r) in only if only else name_of(r) not in without)]


def main() -> None:
    """Print the requirements that the arguments select, one on each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--extra", nargs="*", default=[], help="names of extras, whose requirements are printed too")
    parser.add_argument("--build", default="", help="local version of torch, for example cpu or cu130")
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
