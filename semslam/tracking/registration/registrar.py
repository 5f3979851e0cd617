"""The pose of a frame against the map's predicted view: geometry and colour together, coarse to fine.

Minimised over T_live_view: the robust sum of squared point-to-plane distances, in units of the sensor's noise, and of
differences of grey, in units of their own spread, with a weak prior around the predicted motion. Directions that the
geometry does not determine (along a bare wall) are taken from the geometric term, and so are held by colour where
there is texture and by the prior where there is none (Zhang, Kaess and Singh, ICRA 2016). What noise alone has told
goes back to the prior at the end, see `structure`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine.depth_filter import Noise
from semslam.frame import NO_GREY, Observation, View
from semslam.tracking.registration import structure
from semslam.tracking.registration.comparison import COMPARED_ON, SAMPLED, Comparison, compare
from semslam.tracking.registration.gauss_newton import Balance, spread_of, step_of, symmetric, turn_of
from semslam.tracking.registration.model import (
    BLOCK,
    FIELDS,
    contrasts,
    halved,
    make_model,
    mean_grey,
    sample_grey,
    weigh,
)
from semslam.tracking.registration.settings import Level, RegistrationConfig
from semslam.tracking.registration.terms import COUNT, RR, SUMS, TRIANGLE, WRR, Gates, Live, R, W, linearize

f32 = np.float32


@dataclass(frozen=True, eq=False)
class Linearization:
    """One term's normal equations, hessian x = -gradient, and what they were made of."""

    hessian: np.ndarray  # (6, 6) J^T W J
    gradient: np.ndarray  # (6,) J^T W r
    cost: float  # weighted sum of squared residuals, in units of the noise
    weight: float  # sum of robust weights
    count: int  # points that took part
    mean: float  # of the grey residuals, exposure still in them; 0 for geometry
    rms: float  # of the residuals, unweighted and without exposure; metres or grey levels

    @property
    def spread(self) -> float:
        """Weighted standard deviation of the residuals, in units of the noise assumed."""
        return math.sqrt(self.cost / max(self.weight, 1e-9))


@dataclass(frozen=True, eq=False)
class Registration:
    """The pose found for a frame, and how well it fits; whether to believe it is the caller's to say."""

    T_world_camera: np.ndarray  # (4, 4)
    information: np.ndarray  # (6, 6) inverse covariance of the twist (translation, rotation), camera frame
    geometry: Linearization  # on the finest level
    color: Linearization
    visible: int  # points of the model inside the live image
    measured: int  # of them with live depth
    live_grey: float  # mean of the image, 0..255
    model_grey: float  # mean of what the map shows there
    comparison: Comparison

    @property
    def fitting(self) -> float:
        """Share of the measured points that fit."""
        return max(self.geometry.count / max(self.measured, 1), self.comparison.fitting)

    @property
    def covariance(self) -> np.ndarray:
        return np.linalg.inv(self.information)

    @property
    def std(self) -> float:
        """Metres, and radians: the standard deviation of the pose along its least certain direction."""
        return float(np.linalg.eigvalsh(self.information)[0] ** -0.5)


@dataclass(eq=False)
class _Search:
    """Where a registration stands."""

    T: np.ndarray  # (4, 4) T_live_view
    # (3, SUMS) of the last linearization: geometry, colour and counts
    sums: np.ndarray = field(default_factory=lambda: np.zeros((3, SUMS)))
    # (3,) of residuals: in units of the sensor's noise, wide until they say better; in grey levels; and the exposure,
    # live minus model
    widths: np.ndarray = field(default_factory=lambda: np.array([6.0, 20.0, 0.0]))
    information: np.ndarray = field(default_factory=lambda: np.eye(6))
    # (6, 6) what takes a twist to the part of it that structure tells
    held: np.ndarray = field(default_factory=lambda: np.eye(6))


class Registrar:
    """Registers frames of one camera against views; holds the working images."""

    def __init__(self, camera: Camera, config: RegistrationConfig | None = None) -> None:
        self.camera = camera
        self.config = config or RegistrationConfig()
        height, width = camera.shape
        levels = max(level.pyramid for level in self.config.levels) + 1
        self._pinholes = [_halved(camera, k) for k in range(levels)]
        self._live = [np.empty((height >> k, width >> k), f32) for k in range(levels)]
        self._model = [np.empty((height >> k, width >> k), f32) for k in range(levels)]
        self._greys = [np.empty(0, f32)] * levels  # of the model's points, by pyramid level
        self._gates = [self._gates_of(level) for level in self.config.levels]
        self.noise = self.config.noise, self.config.noise_quadratic

    def _gates_of(self, level: Level) -> Gates:
        """The gates of a level; noise and widths are those of a frame."""
        c, nothing = self.config, f32(0)
        return Gates(
            base=nothing,
            quadratic=nothing,
            far=f32(level.gate),
            cosine=f32(np.cos(np.radians(c.normal_gate_deg))),
            geometry_scale=nothing,
            tukey=f32(c.tukey),
            grey_scale=nothing,
            grey_offset=nothing,
            gradient2=f32(c.min_gradient**2),
            huber=f32(c.huber),
            border=f32(c.border),
        )

    @property
    def noise(self) -> tuple[float, float]:
        """The sensor's, as `depth_sigma` takes it: metres, and 1 / metre."""
        return float(self._noise[0]), float(self._noise[1])

    @noise.setter
    def noise(self, values: tuple[float, float]) -> None:
        self._noise = Noise.of(*values)

    def register(self, observation: Observation, view: View, T_prior: np.ndarray) -> Registration:
        """The pose of an observation, which needs normals, against a view of the map, searched around T_prior."""
        if observation.normals is None:
            raise ValueError(f"frame {observation.frame.number} has no normals; call `Fusion.prepare` first")
        T_prior_live_view = poses.inverse(T_prior) @ view.T_world_camera
        self._see(observation, view)
        self._expose(T_prior_live_view)
        self._models = [self._model_of(level) for level in self.config.levels]
        search = _Search(T_prior_live_view)
        self._turn(search, observation)
        for number in range(len(self.config.levels)):
            self._descend(number, search, observation, poses.inverse(T_prior_live_view))
        if self.config.structure:
            self._hold(search, observation, T_prior_live_view)
        # Inverses are transposes: a rotation's rounding would double with every frame that builds on it.
        T = poses.orthonormalized(view.T_world_camera @ poses.inverse(search.T))
        return Registration(
            T, search.information, _unpacked(search.sums[0]), _unpacked(search.sums[1]),
            int(search.sums[2, 0]), int(search.sums[2, 1]),
            mean_grey(self._live[-1]), mean_grey(self._model[-1]),
            self._compared(search.T, observation),
        )  # fmt: skip

    def _see(self, observation: Observation, view: View) -> None:
        """Grey pyramids of both sides, and how much the model's points count."""
        c = self.config
        self._live[0][:] = cv2.cvtColor(observation.color, cv2.COLOR_RGB2GRAY)
        if observation.hidden is not None:
            self._live[0][observation.hidden] = NO_GREY
        self._model[0] = view.grey
        for pyramid in (self._live, self._model):
            for fine, coarse in pairwise(pyramid):
                halved(fine, coarse)
        if observation.hidden is not None:
            for image in self._live:
                image[image < 0] = np.nan  # no gradient across the border of what is hidden passes for one
        self._points, self._pixels = view.points, view.pixels
        self._trust, self._roots, self._greys[0] = np.empty((3, len(view.points)), f32)
        weigh(
            view.points, view.pixels, view.grey, f32(c.trusted), self._trust, self._roots, self._greys[0],
        )  # fmt: skip
        for level in c.levels:
            if level.pyramid > 0:
                self._greys[level.pyramid] = np.empty(len(view.points), f32)
                sample_grey(
                    view.points, level.every, self._model[level.pyramid], self._pinholes[level.pyramid],
                    self._greys[level.pyramid],
                )  # fmt: skip
        self._share = view.stride**2 / c.correlation  # of a measurement that one point is worth
        self._sums = np.empty((-(-len(view.points) // BLOCK), 3, SUMS), f32)

    def _model_of(self, level: Level) -> np.ndarray:
        """The view's points that take part on a level, as `linearize` takes them."""
        blocks = -(-len(self._points) // (level.every * BLOCK))
        model = np.empty((blocks, FIELDS, BLOCK), f32)
        make_model(self._points, self._roots, self._greys[level.pyramid], level.every, model)
        return model

    def _expose(self, T_live_view: np.ndarray) -> None:
        """Bring the model's grey to the contrast of the live image, where automatic exposure has changed it.

        The offset follows with every linearization. Contrast is the spread of grey where the model is expected, on the
        coarsest level: a wrong pose hardly changes it.
        """
        level, least = self.config.levels[0], self.config.textured
        model, live, known = contrasts(
            self._points, 4 * level.every, self._greys[level.pyramid], T_live_view.astype(f32),
            self._live[level.pyramid], self._pinholes[level.pyramid],
        )  # fmt: skip
        gain = max(live, least) / max(model, least) if known >= 50 else 1.0
        self._gain = 1.0 if 0.9 < gain < 1.1 else min(max(gain, 0.1), 4.0)
        if self._gain != 1:
            for level in self.config.levels:
                greys = self._greys[level.pyramid][:: level.every]  # the others are not filled
                greys[greys >= 0] *= f32(self._gain)

    def _compared(self, T_live_view: np.ndarray, observation: Observation) -> Comparison:
        """Residuals and greys of a sample of the model's points at the pose found."""
        assert observation.normals is not None
        found = np.empty((3, len(self._points) // SAMPLED + 1), f32)
        same, fitting, measured, correlation, model_std, live_std = compare(
            self._points, self._trust, T_live_view.astype(f32),
            Live(observation.depth, observation.normals, self._live[COMPARED_ON]),
            self._pinholes[0], self._noise, self._greys[COMPARED_ON], found,
        )  # fmt: skip
        depth, residual, along_ray = found[:, :same]
        return Comparison(
            depth=depth,
            residual=residual,
            along_ray=along_ray,
            fitting=fitting / max(measured, 1),
            correlation=correlation if min(model_std, live_std) >= self.config.textured else math.nan,
            gain=live_std / model_std if model_std > 0 else 1.0,
        )

    def _gates_now(self, number: int, search: _Search) -> Gates:
        """The gates of a level by the noise and the widths of residuals as they are known."""
        geometry_scale, grey_scale, grey_offset = map(f32, search.widths)
        return self._gates[number]._replace(
            base=self._noise.base, quadratic=self._noise.quadratic,
            geometry_scale=geometry_scale, grey_scale=grey_scale, grey_offset=grey_offset,
        )  # fmt: skip

    def _linearize(self, number: int, search: _Search, observation: Observation) -> None:
        """The sums of both terms at the search's pose, on one level."""
        assert observation.normals is not None
        level = self.config.levels[number]
        gates = self._gates_now(number, search)
        live = Live(observation.depth, observation.normals, self._live[level.pyramid])
        model, sums = self._models[number], self._sums[: len(self._models[number])]
        linearize(model, search.T.astype(f32), live, self._pinholes[0], self._pinholes[level.pyramid], gates, sums)
        search.sums = sums.sum(axis=0, dtype=np.float64)

    def _turn(self, search: _Search, observation: Observation) -> None:
        """SO(3) pre-alignment: turn the prior by what the coarse images say, for fast rotation (Lovegrove 2011).

        Kept only where the images then agree better.
        """
        if not self.config.rotation_iterations:
            return
        start, best = search.T, None
        for _ in range(self.config.rotation_iterations + 1):
            self._linearize(0, search, observation)
            color = search.sums[1]
            if color[COUNT] < 50:
                break
            score = color[RR] / color[COUNT]  # the images' squared differences
            if best is None or score < best[0]:
                best = score, search.T
            step = turn_of(color)
            search.T = poses.exp(np.concatenate([np.zeros(3), step])) @ search.T
            if np.linalg.norm(step) < 10 * self.config.converged:
                break
        search.T = start if best is None else best[1]

    def _descend(self, number: int, search: _Search, observation: Observation, T_view_prior: np.ndarray) -> None:
        """Gauss-Newton iterations on one level. T_view_prior: the inverse of T_live_view as it is expected."""
        c, level = self.config, self.config.levels[number]
        balance = Balance(
            level.every * self._share, c.color_weight, c.prior_translation, c.prior_rotation, c.degenerate
        )
        enough = c.converged * (1 if number == len(c.levels) - 1 else 5)  # a finer level follows
        for _ in range(level.iterations):
            self._linearize(number, search, observation)
            from_prior = poses.log(search.T @ T_view_prior)
            step, search.information = step_of(search.sums[:2], search.widths, balance, search.held, from_prior)
            search.T = poses.exp(step) @ search.T
            if max(math.hypot(*step[:3]), math.hypot(*step[3:])) < enough:
                break

    def _hold(self, search: _Search, observation: Observation, T_prior: np.ndarray) -> None:
        """Take from the motion expected, T_prior = T_live_view, what nothing but noise has told."""
        c = self.config
        for samples, mostly in ((structure.FEW, structure.SURELY), (structure.SAMPLES, structure.MOSTLY)):
            search.held = self._held(search, observation, samples, mostly)
            if np.array_equal(search.held, np.eye(6)):
                return
        T_view_prior = poses.inverse(T_prior)
        search.T = poses.exp(search.held @ poses.log(search.T @ T_view_prior)) @ T_prior
        self._descend(len(c.levels) - 1, search, observation, T_view_prior)

    def _held(self, search: _Search, observation: Observation, samples: int, mostly: float) -> np.ndarray:
        """`held_by_structure` at the pose found, by so many points."""
        c, every = self.config, -(-len(self._points) // samples) or 1
        both = self._products(search, observation, every)
        spread = min(max(spread_of(search.sums[0]), 0.2), 6.0)
        shares = self._share * every / spread**2, self._share * every * c.color_weight
        prior = np.repeat([c.prior_translation**-2.0, c.prior_rotation**-2.0], 3)
        return structure.held_by_structure(both, shares, min(self._share * every, 1.0), prior, c.degenerate, mostly)

    def _products(self, search: _Search, observation: Observation, every: int) -> structure.Products:
        """Products of the Jacobians that map and frame tell, at the pose found."""
        assert observation.normals is not None
        level = COMPARED_ON
        gates = self._gates_now(len(self.config.levels) - 1, search)
        live = Live(observation.depth, observation.normals, self._live[level])
        return structure.Products(*structure.products(
            (self._points, self._pixels, self._roots), every, search.T.astype(f32), live,
            (self._pinholes[0], self._pinholes[level]), (self._model[level], f32(self._gain)), gates,
        ))  # fmt: skip


def _halved(camera: Camera, times: int) -> Pinhole:
    """The camera of an image halved so often, pixel centres on pixel centres."""
    scale = 0.5**times
    cx, cy = (camera.cx + 0.5) * scale - 0.5, (camera.cy + 0.5) * scale - 0.5
    size = camera.width >> times, camera.height >> times
    return Pinhole(*size, f32(camera.fx * scale), f32(camera.fy * scale), f32(cx), f32(cy))


def _unpacked(sums: np.ndarray) -> Linearization:
    count = int(sums[COUNT])
    return Linearization(
        hessian=symmetric(sums),
        gradient=sums[TRIANGLE : TRIANGLE + 6].copy(),
        cost=float(sums[WRR]),
        weight=float(sums[W]),
        count=count,
        mean=float(sums[R]) / max(count, 1),
        rms=math.sqrt(sums[RR] / max(count, 1)),
    )
