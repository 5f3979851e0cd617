"""What a package index and a fresh environment get."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("semslam", "networks", "sequences")


def test_every_folder_with_modules_is_a_package_so_that_the_wheel_holds_it():
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert not [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_tells_type_checkers_that_it_has_types(package):
    assert (ROOT / package / "py.typed").is_file()


def test_the_citation_names_this_version_and_papers_with_authors_and_years():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert citation["references"]
    for paper in citation["references"]:
        assert paper["title"] and paper["authors"] and 1990 < paper["year"] < 2100
