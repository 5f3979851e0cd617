"""What poses by images depend on: what is kept of others is made again."""

from __future__ import annotations

import json
from dataclasses import replace

from semslam import config as configs
from semslam.runs.config import RunConfig
from semslam.runs.recording import fingerprint
from sequences import Sequence as Recording


def settings_of_poses(config: RunConfig, sequence: Recording) -> str:
    """All settings of a run, as YAML, and what its recording is known by, in place of where it is: it may be moved."""
    return configs.to_yaml(replace(config, sequence="")) + json.dumps(fingerprint(sequence))
