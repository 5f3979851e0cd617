"""Writes the documentation from the docstrings and the settings' dataclasses into a folder: `make docs`.

index.html is the README, settings.html lists every setting with its default, unit and meaning, api/ has a page for each
module (pdoc).
"""

from __future__ import annotations

import argparse
import dataclasses
import html
from collections.abc import Iterator
from pathlib import Path

import pdoc
from pdoc.render_helpers import to_html
from semslam.runs.config import RunConfig

from networks.training.joint import JointTraining
from networks.training.pose import PoseTraining
from semslam.config import explained

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("semslam", "networks", "sequences")
SETTINGS = {  # what a kind of settings file is for -> its dataclass
    "`semslam reconstruct --config FILE`, or one by one `--set NAME=VALUE`": RunConfig,
    "`semslam train FILE`, a joint network": JointTraining,
    "`semslam train FILE` with `kind: pose`, a pose network": PoseTraining,
}
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
    """The dotted name of every module and package, so that none is missing because a package names others."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def settings_page() -> str:
    """A table of every setting for each kind of settings file."""
    body = "<h1>Settings</h1>"
    for use, kind in SETTINGS.items():
        body += f"<h2>{kind.__name__}</h2>{to_html(use)}<table><tr><th>setting</th><th>type</th><th>default</th><th>unit</th><th>meaning</th></tr>"
        for setting in explained(kind):
            name, value, default, unit, meaning = map(html.escape, dataclasses.astuple(setting))
            body += (
                f"<tr><td><code>{name}</code></td><td>{value}</td><td><code>{default}</code></td>"
                f"<td>{unit}</td><td>{meaning}</td></tr>\n"
            )
        body += "</table>"
    return PAGE.format(title="semslam: settings", body=body)


def main() -> None:
    """Write all pages; the folder is made where it does not exist."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "site")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    picture = '<p><img src="kitchen.png" alt="a kitchen as a map, colours and classes"></p>'
    readme = to_html((ROOT / "README.md").read_text(encoding="utf-8"))
    (folder / "index.html").write_text(PAGE.format(title="semslam", body=picture + readme), encoding="utf-8")
    (folder / "kitchen.png").write_bytes((ROOT / "docs" / "kitchen.png").read_bytes())
    (folder / "settings.html").write_text(settings_page(), encoding="utf-8")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*modules(), output_directory=folder / "api")


if __name__ == "__main__":
    main()
