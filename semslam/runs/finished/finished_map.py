"""The map of a finished run, opened to find cameras in it, to go on in it, or to join it with another."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from semslam.camera import Camera
from semslam.engine.surfels import SURFEL_ARRAYS
from semslam.rendering.splatting import observed
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.recording import filming_camera, recorded_camera
from semslam.stage import under_prefix
from semslam.tracking.relocalisation.localisation import Localiser
from semslam.tracking.relocalisation.places import Places


class FinishedMap:
    """The map of a run, with places to find cameras in it."""

    def __init__(self, run: str | Path, moved_to: str | None = None, paged: bool = False) -> None:
        """moved_to: where the run's recording is now; it is read only for a run of a version that kept no places.
        paged: of the surfels no more are kept in memory than the run's settings say, as long as its folder may hold
        the others; for those who look at the map and leave it as it is.

        FileNotFoundError where there is no run, ValueError where its files are damaged or it shows no place.
        """
        self.folder = RunFolder.open(run)
        self.config = self.folder.load_config()
        paged = paged and self.folder.in_parts
        state = self.folder.load_state(stored=paged)
        self.state = {name: array for name, array in state.items() if name not in SURFEL_ARRAYS}
        self.surfels, self.progress = self.folder.load_map(state, paged), Progress.from_state(state)
        self.places = Places()
        self.places.restore(under_prefix("places_", state))
        main = self.progress.parts[0]
        earlier = {index for index in self.places.indices if index < 0 and main == 0}  # of runs that this one extends
        self.places.keep(earlier | set(self.progress.frames_of(main)))
        if not len(self.surfels):
            raise ValueError(self.folder.nothing_mapped)
        if not len(self.places):
            self._look_around(moved_to)
        if not len(self.places):
            raise ValueError(f"{run}: its map shows no place to find a camera by; make the run again")

    @property
    def camera(self) -> Camera | None:
        """That of the run's frames; None where an earlier version did not keep it."""
        kept = self.folder.load_recording()
        return None if kept is None else recorded_camera(json.loads(str(kept)))

    @property
    def filming_camera(self) -> Camera | None:
        """That of other images taken by the run's camera, whose lens or zoom is undone in the run's frames."""
        kept = self.folder.load_recording()
        return None if kept is None else filming_camera(json.loads(str(kept)))

    @cached_property
    def localiser(self) -> Localiser:
        """To find images, by the sensor's noise and range as the run found them."""
        slam = self.progress.with_found(self.config.slam)
        # along normals, as registration counts it
        measured = self.state.get("tracker_noise_values", self.progress.noise)
        if measured is not None:
            noise, quadratic = map(float, measured)
            registration = replace(slam.tracking.registration, noise=noise, noise_quadratic=quadratic)
            slam = replace(slam, tracking=replace(slam.tracking, registration=registration))
        return Localiser(self.surfels, self.places, slam.fusion, slam.tracking)

    def _look_around(self, moved_to: str | None) -> None:
        """Make the places of a run that kept none: from its recording or, without that, from pictures of its map."""
        cloud = self.surfels.cloud()
        try:
            sequence = self.folder.open_sequence(moved_to)
        except (ValueError, OSError):
            if moved_to is not None:
                raise
            sequence = None
        camera = self.camera if sequence is None else sequence.camera
        if camera is None or not len(cloud):
            return
        for index, T in self.progress.posed().items():
            if not self.places.is_new(T):
                continue
            seen = observed(cloud, camera, T)
            frame = sequence.try_read(index) if sequence is not None else None
            color = frame.color if frame is not None else seen.color
            self.places.see(replace(seen, frame=replace(seen.frame, index=index), color=color), T)
