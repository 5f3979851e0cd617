"""Writes the documentation from the docstrings and the settings' dataclasses into a folder: `make docs`.

index.html is the README, and each Markdown file beside this one is a page; settings.html lists every setting with its
type, default, unit and meaning; api/ has a page for each module, made by pdoc.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pdoc
from pdoc.render_helpers import to_html

from networks.training.data import Source
from networks.training.joint import JointTraining, Stage
from networks.training.pose import PoseTraining
from semslam.config import explained
from semslam.runs.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("semslam", "networks", "sequences")
SETTINGS = {  # title of a table -> the dataclass that it lists
    "A run: `semslam reconstruct --config FILE`, or one setting as `--set NAME=VALUE`": RunConfig,
    "The training of a joint network: `semslam train FILE`": JointTraining,
    "... one of its `sources`": Source,
    "... one of its `stages`": Stage,
    "The training of a pose network: `semslam train FILE` with `kind: pose`": PoseTraining,
}
COLUMNS = ("setting", "type", "default", "unit", "meaning")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border-bottom: 1px solid #ccc; padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top }}
pre {{ background: #f4f4f4; padding: .75rem; overflow-x: auto }}
code {{ font-size: .9em }}
img {{ max-width: 100% }}
</style></head>
<body><p><a href="index.html">semslam</a> | <a href="settings.html">settings</a> | <a href="api/index.html">API</a></p>
{body}
</body></html>
"""


def modules() -> Iterator[str]:
    """The dotted name of every module, so that none is missing because its package's `__all__` names others."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row(cells: Iterator[str], tag: str = "td") -> str:
    """A row of a table, from cells of HTML."""
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"


def settings_page() -> str:
    """A table of settings for each kind of settings file."""
    body = "<h1>Settings</h1>\n"
    for title, kind in SETTINGS.items():
        body += to_html(f"## {title}") + "<table>" + row(iter(COLUMNS), "th")
        for setting in explained(kind):
            name, value, default, unit, meaning = map(html.escape, dataclasses.astuple(setting))
            body += row(iter((f"<code>{name}</code>", value, f"<code>{default}</code>", unit, meaning)))
        body += "</table>\n"
    return PAGE.format(title="semslam: settings", body=body)


def page(path: Path) -> str:
    """A Markdown file as a page. Links to other such files become links to their pages."""
    body = to_html(path.read_text(encoding="utf-8"))
    body = re.sub(r'(href|src)="(?:\.\./|docs/)', r'\1="', body)
    body = re.sub(r'href="README\.md', 'href="index.html', body)
    body = re.sub(r'href="(\w+)\.md', r'href="\1.html', body)
    return PAGE.format(title="semslam" if path.name == "README.md" else f"semslam: {path.stem}", body=body)


def main() -> None:
    """Write all pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "site")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page(ROOT / "README.md"), encoding="utf-8")
    (folder / "settings.html").write_text(settings_page(), encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md")):
        (folder / f"{path.stem}.html").write_text(page(path), encoding="utf-8")
    for beside in sorted((ROOT / "docs").iterdir()):
        if beside.suffix in (".png", ".jpg", ".json"):
            shutil.copyfile(beside, folder / beside.name)
    # pdoc 16 looks for the types of a NamedTuple's fields in the wrong module; the pages are complete without them
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    warnings.filterwarnings("ignore", "The module specification")  # named twice: by itself and through its package
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*modules(), output_directory=folder / "api")


if __name__ == "__main__":
    main()
