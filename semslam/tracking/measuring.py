"""Registration by the noise of the depth camera, which it measures meanwhile."""

from __future__ import annotations

import numpy as np

from semslam.frame import Observation, Tracking, View
from semslam.tracking.judgement import LIKENESS, TrackingConfig
from semslam.tracking.noise import SensorNoise
from semslam.tracking.registration.registrar import Registrar, Registration


class MeasuringRegistrar:
    """Registers frames against views of the map, by the noise that earlier frames told."""

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.noise = SensorNoise(config.registration.noise, config.registration.noise_quadratic)
        self._registrar: Registrar | None = None

    def register(self, observation: Observation, view: View, T_prior: np.ndarray) -> Registration:
        """The pose of an observation, which needs normals, searched around T_prior; without judging it."""
        if self._registrar is None or self._registrar.camera != observation.camera:
            self._registrar = Registrar(observation.camera, self.config.registration)
        self._registrar.noise = self.noise.along_normals.model_now
        return self._registrar.register(observation, view, T_prior)

    def learn(self, found: Registration, tracking: Tracking) -> None:
        """Take in the residuals of a registration, judged as `tracking`, where they are the camera's noise: its pose
        holds, and its image is sound or looks like the map."""
        alike = tracking.sound or found.comparison.correlation >= LIKENESS
        if self.config.measure_noise and tracking.ok and alike:
            self.noise.learn(found.comparison)
