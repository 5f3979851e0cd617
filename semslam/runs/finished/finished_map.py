"""The map of a finished run, opened to find cameras in it, to go on in it, or to join it with another."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from semslam.camera import Camera
from semslam.engine.surfels import SURFEL_ARRAYS
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.recording import filming_camera, recorded_camera
from semslam.stage import under_prefix
from semslam.tracking.relocalisation.localisation import Localiser
from semslam.tracking.relocalisation.places import Places


class FinishedMap:
    """The map of a run, with places to find cameras in it."""

    def __init__(self, run: str | Path, paged: bool = False) -> None:
        """paged: of the surfels no more are kept in memory than the run's settings say, as long as its folder may hold
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
            raise ValueError(f"{run}: its map shows no place to find a camera by; make the run again")

    def check_joined(self, task: str) -> None:
        """ValueError where the map is in parts that have not met: nothing can be added to several worlds."""
        if (parts := len(self.progress.parts)) > 1:
            raise ValueError(f"{self.folder.path}: its map is in {parts} parts that have not met; {task} another")

    @property
    def camera(self) -> Camera:
        """That of the run's frames."""
        return recorded_camera(self.folder.load_recording())

    @property
    def filming_camera(self) -> Camera:
        """That of other images taken by the run's camera, whose lens or zoom is undone in the run's frames."""
        return filming_camera(self.folder.load_recording())

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
