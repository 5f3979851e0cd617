"""The documentation lists every module and every setting, each with its meaning; the README's example runs."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from semslam.config import explained

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def build(monkeypatch):
    pytest.importorskip("pdoc")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return import_module("build")


def test_the_settings_page_lists_every_setting(build):
    page = build.settings_page()
    names = [setting.name for kind in build.SETTINGS.values() for setting in explained(kind)]
    assert len(names) > 150
    assert not [name for name in names if f"<code>{name}</code>" not in page]


def test_every_setting_says_what_it_means(build):
    assert not [
        f"{kind.__name__}.{setting.name}"
        for kind in build.SETTINGS.values()
        for setting in explained(kind)
        if not setting.meaning
    ]


def test_every_module_gets_a_page_and_says_what_it_is_for(build):
    names = list(build.modules())
    assert {"semslam", "semslam.slam", "networks.joint.network", "sequences.recordings.tum"} <= set(names)
    assert not [name for name in names if not (import_module(name).__doc__ or "").strip()]


def texts() -> list[Path]:
    """The README and the pages beside it."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_link_of_the_readme_and_the_pages_leads_to_a_file():
    links = [
        (path, link) for path in texts() for link in re.findall(r"\]\(([^)\s]+)", path.read_text(encoding="utf-8"))
    ]
    inside = [(path, link.split("#")[0]) for path, link in links if not link.startswith("https://")]
    assert len(inside) > 5
    assert not [(path, link) for path, link in inside if not (path.parent / link).is_file()]


def test_links_between_texts_become_links_between_web_pages(build, tmp_path):
    text = tmp_path / "one.md"
    text.write_text("![a map](docs/map.png) [two](docs/two.md#there) [front](../README.md) [data](docs/data.json)\n")
    page = build.page(text)
    assert 'src="map.png"' in page and 'href="two.html#there"' in page
    assert 'href="index.html"' in page and 'href="data.json"' in page


def test_the_readme_names_every_command():
    from typer.main import get_command

    from semslam.cli import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in get_command(app).commands if f"semslam {name}" not in text]


@pytest.mark.slow
def test_the_example_in_the_readme_runs(capsys):
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    values: dict = {}
    exec(example[1], values)
    assert len(values["cloud"]) > 10_000
    assert len(capsys.readouterr().out.splitlines()) == 60
