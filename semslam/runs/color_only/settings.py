"""The settings that poses by images depend on: what is kept of poses with other ones is made again."""

from __future__ import annotations

from dataclasses import replace

from semslam import config as configs
from semslam.runs.config import RunConfig


def settings_of_poses(config: RunConfig) -> str:
    """All settings of a run but the place of its recording, which may be moved, as YAML."""
    return configs.to_yaml(replace(config, sequence=""))
