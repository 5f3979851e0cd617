"""One run: a sequence through the loop into a run folder, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from semslam import config as configs
from semslam.cloud import CloudInParts, SurfelCloud, joined
from semslam.depth.layers import remove_layers
from semslam.depth.multiview import MultiViewDepth
from semslam.depth.synchronised_sequence import SynchronisedSequence
from semslam.doctor.depth.edges import DepthEdges
from semslam.doctor.depth.range import usable_share
from semslam.doctor.depth.repeats import ColorRepeats, DepthRepeats
from semslam.engine.associations import Associations
from semslam.engine.saved_surfels import state_parts
from semslam.frame import Frame, Step
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.labels_ahead import LabelsAhead
from semslam.runs.poses import ListedPoses
from semslam.runs.progress import Progress
from semslam.runs.recording import (
    as_array,
    as_compared,
    as_used,
    check_unchanged,
    delay_undone,
    is_the_one,
    remembered,
)
from semslam.runs.storage.arrays import naming, parts_of
from semslam.runs.storage.checkpoint import CHECKPOINT, stretched
from semslam.runs.storage.clouds import clouds_of
from semslam.runs.storage.versions import versions
from semslam.runs.unreadable import Unreadable
from semslam.slam import Slam
from semslam.stage import Stage, prefixed, under_prefix
from semslam.threads import background
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)


class Run:
    """A reconstruction in progress. Iterate to step through the sequence; `save` at any time between two steps."""

    def __init__(
        self,
        config: RunConfig,
        sequence: Recording,
        slam: Slam,
        folder: RunFolder,
        *,
        resume: bool = False,
        checkpoint: float | None = None,
    ) -> None:
        """sequence: an open `sequences.Sequence`. resume: go on where the folder's saved state ends, if it has one.
        checkpoint: seconds after which the state is saved again, 0 = never; None = CHECKPOINT, or as many more as keep
        saving at CHECKPOINT_SHARE of the run."""
        if checkpoint is not None and not checkpoint >= 0:
            raise ValueError(f"checkpoint is {checkpoint}, expected seconds, or 0 for never")
        self.config, self.sequence, self.slam, self.folder = config, sequence, slam, folder
        self.progress = Progress()
        self._depth_edges = DepthEdges(sequence) if config.slam.perception.depth == "sensor" else None
        self._depth_repeats = DepthRepeats() if config.slam.perception.depth == "sensor" else None
        self._color_repeats = ColorRepeats() if config.slam.perception.depth == "sensor" else None
        # they are looked at beside the next frame; the result says whether all that there is to see was seen
        self._edges_thread = background("edges")
        self._edges_seen: Future[bool] | None = None
        self.filled: SurfelCloud | None = None  # surfels that fill holes; see runs.finished.fill
        self.checkpoint = checkpoint
        self._checkpoint = folder.checkpoint
        self._saved = -1  # the frame after which the state was saved as a whole
        # where a network's labels would go, so can others later
        slam.remember(Associations(config.slam.perception.network_labels_every, folder.path))
        if resume and folder.exists:
            self._restore()
        self.progress.depth_range, self.progress.readout = slam.fusion.config.range, slam.config.perception.readout
        self.synchronise(slam.track.T_world_camera if isinstance(slam.track, ListedPoses) else ())
        if self.progress.next_index:
            self._see_edges_again()
        self._unreadable = Unreadable(
            sequence,
            config.max_corrupt,
            self.progress.corrupt,
            config.sequence,
            remedy="; --resume with a larger one goes on from here",
        )
        self._unreadable.check(len(sequence))

    def __len__(self) -> int:
        """Frames still to do."""
        return len(self.sequence) - self.progress.next_index

    def __iter__(self) -> Iterator[Step | None]:
        """Step through the remaining frames; None for one that was unreadable, held out, of two moments or passed by:
        see `_frames`."""
        began = saved = time.perf_counter()
        pause = CHECKPOINT if self.checkpoint is None else self.checkpoint
        for index, frame in self._frames():
            step = self._advance(index, frame)
            self.progress.next_index = index + 1
            self.progress.seconds += time.perf_counter() - began
            if pause and time.perf_counter() - saved >= pause and len(self):
                saving = time.perf_counter()
                self.save_checkpoint()
                saved = time.perf_counter()
                if self.checkpoint is None:
                    pause = stretched(pause, saved - saving)
            yield step
            began = time.perf_counter()  # waiting for the next frame to be decoded counts

    def _advance(self, index: int, frame: Frame | Exception | None) -> Step | None:
        if isinstance(frame, Exception):
            try:
                self._unreadable.skip(index, frame, len(self.sequence))
            except Exception:
                # a frame that is whole is not left out: --resume goes on with that one
                self.progress.next_index = index + 1 if index in self.progress.corrupt else index
                self.save()
                raise
            return None
        if self._is_held_out(index):
            self.progress.held_out.append(index)
            return None
        if frame is None:
            self._pass_by(index)
            return None
        if self._color_repeats is not None and self._color_repeats.see(frame):
            self.progress.color_repeated.append(index)  # colour would hold tracking back, and paint the map wrongly
            return None
        if self._depth_repeats is not None and frame.depth is not None and self._depth_repeats.see(frame):
            self.progress.depth_repeated.append(index)
            frame = replace(frame, depth=np.zeros_like(frame.depth))  # of another moment than colour and pose
        if isinstance(self.frames, SynchronisedSequence):  # only now: what repeats was moved otherwise each time
            frame = self.frames.synchronised(frame)
        step = self.slam.step(frame)
        self.progress.record(step)
        if frame.depth is not None and self.config.slam.perception.depth == "sensor":
            self.progress.count_depth(*usable_share(frame.depth, self.slam.fusion.config))
        if self._edges_seen is not None and self._edges_seen.result():
            self.judge_depth()
        if self._depth_edges is not None:
            self._edges_seen = self._edges_thread.submit(self._depth_edges.see, frame)
        return step

    def judge_depth(self) -> None:
        """Tell once whether depth and colour are images of one thing, by what was seen so far."""
        if self._edges_seen is not None:
            self._edges_seen.result()
        edges, self._depth_edges, self._edges_seen = self._depth_edges, None, None
        for finding in edges.findings() if edges is not None else []:
            if finding.level == "error" and not self.progress.depth_contradicted:
                self.progress.depth_contradicted = finding.what
                logger.warning(
                    "%s: %s; %s; surfaces are blurred or in wrong colours (`semslam doctor` looks closer)",
                    *(self.config.sequence, finding.what, finding.remedy),
                )

    def _pass_by(self, index: int) -> None:
        assert isinstance(self.slam.track, ListedPoses)
        T = self.slam.track.T_world_camera[index]
        assert T is not None
        self.progress.add_pose(index, float(self.sequence.timestamps[index]), T)
        self.slam.stepped += 1

    def _frames(self) -> Iterator[tuple[int, Frame | Exception | None]]:
        """Frames in order, decoded ahead by another thread; the exception of one that cannot be read.

        Depth by parallax looks ahead itself, and is of keyframes. There None stands for the other frames, which are
        passed by unread where it is known, since their poses were found, that their images can be read; each step
        decides which they are.
        """
        from sequences.prefetch import attempted, read_ahead

        remaining = self.sequence.numbers(self.progress.next_index)
        track, views = self.slam.track, self.slam.correct
        if isinstance(views, MultiViewDepth) and isinstance(track, ListedPoses) and track.readable is not None:
            passed_by = [read and T is not None for read, T in zip(track.readable, track.T_world_camera, strict=True)]
            return (
                (i, None if passed_by[i] and not views.has_moved(i) else attempted(self._read_ahead, i))
                for i in remaining
            )
        return read_ahead(self._read_ahead, remaining, self.sequence.ahead, self.sequence.decoders)

    def read(self, index: int) -> Frame:
        """A frame as it is fused, with labels where they are; ValueError or OSError where it cannot be read."""
        return self._read(self.frames, index)

    def _read(self, sequence: Recording, index: int) -> Frame:
        truth = self.config.slam.perception.labels == "truth"
        return sequence[index] if truth else sequence.read_without_labels(index)

    def synchronise(self, T_world_camera: Sequence[np.ndarray | None]) -> None:
        """From now on read `frames` as of one moment each, by the poses (4, 4) of the recording's; see `as_used`."""
        self.frames = as_used(self.sequence, self.progress, self.slam.config.perception, T_world_camera)

    def _read_ahead(self, index: int) -> Frame:
        """A frame as recorded; where a network's labels are fused, that begins to look at it."""
        perception, camera = self.config.slam.perception, self.slam.fusion.camera
        frame = self._read(self.sequence, index)
        if perception.labels == "truth":
            return frame
        if isinstance(self.slam.network, LabelsAhead) and not self._is_held_out(index):
            every = self.config.hold_out
            # how many frames are perceived before it; a guess, as some may be corrupt
            left_out = len(self.progress.corrupt) + len(self.progress.color_repeated)
            before = index - (index // every if every else 0) - left_out
            if before % perception.labels_every == 0:
                size = camera.width, camera.height
                self.slam.network.begin(index, frame.color, size, perception.is_mirrored(index))
        return frame

    def _is_held_out(self, index: int) -> bool:
        every = self.config.hold_out
        return every is not None and index % every == every - 1

    def cloud(self) -> SurfelCloud:
        """The map so far as plain arrays, filled surfels last; of sub-maps that have not met, the largest."""
        largest = self.progress.parts[0]
        return joined([self.progress.part_of(self.slam.cloud(), largest), *self._filled_of(largest)])

    def clouds(self, submap: int | None = None) -> CloudInParts:
        """`cloud`, in parts where the map is paged; of sub-maps that have not met, one, by default the largest."""
        submap = self.progress.parts[0] if submap is None else submap
        surfels, filled = self.slam.surfels, self._filled_of(submap)

        if surfels.paging is None:
            return CloudInParts.of(joined([self.progress.part_of(self.slam.cloud(), submap), *filled]))
        return clouds_of(surfels, self.slam.labels, self.progress, submap, filled)

    def _filled_of(self, submap: int) -> list[SurfelCloud]:
        """The surfels that fill holes, as a part of a map; nothing for other sub-maps than the largest."""
        return [self.filled] if self.filled is not None and submap == self.progress.parts[0] else []

    def remove_unsure(self, least: float) -> None:
        """Remove, when all frames are done, surfels with less confidence than that, or than half of the median, and
        those straight before or behind surer ones.

        What several views say of one place adds up. Where they contradict each other, as depth without a sensor does,
        each says something else, and none of it becomes sure.
        """
        surfels = self.slam.surfels
        if len(surfels) == 0:
            return
        surfels.remove_unsure(min(least, 0.5 * surfels.median_confidence()))
        remove_layers(surfels)
        self.changed()

    def changed(self) -> None:
        """To be called where surfels were removed after the last frame: `save` writes them anew."""
        self.slam.fusion.invalidate(slots_moved=True)
        self._saved = -1

    def save(self) -> None:
        """Write the lossless state and the trajectories: enough to go on, or to look at what there is."""
        if self._saved == self.progress.next_index:
            return
        if self.slam.associations is not None:  # first, because the map beside it says how many of its events count
            self.folder.save_associations(self.slam.associations)
        self.folder.save_state(chain(state_parts(self.slam.surfels), parts_of(self._state())), self.config)
        self.folder.save_trajectories(self.progress, self.slam.surfels.world_origin)
        self._saved = self.progress.next_index

    def save_checkpoint(self) -> None:
        """Write what has changed since the last time: after a crash the run goes on from here."""
        state = self._state() | {"run_config": np.array(configs.to_yaml(self.config))}
        if self.slam.associations is not None:
            state |= {f"associations_{key}": value for key, value in self.slam.associations.state().items()}
        self._checkpoint.save(self.slam.surfels, state)

    @cached_property
    def _recording(self) -> np.ndarray:
        return as_array(remembered(self.sequence, self.config, self.folder.final))

    def metrics(self) -> dict[str, Any]:
        """Counts, timings and versions for metrics.json, whose names are stable."""
        progress, surfels = self.progress, self.slam.surfels
        perception, moved = self.slam.config.perception, progress.motion_known
        return {
            "frames": progress.next_index,
            "identity": progress.identity,  # by which it is told whether map.npz is of the same run
            "frames_fused": progress.fused,
            "frames_lost": len(progress.lost),
            "frames_poor": len(progress.poor),
            "frames_apart": sum(len(progress.frames_of(number)) for number in progress.parts[1:]),
            "submaps": len(progress.parts),
            "frames_depth_repeated": len(progress.depth_repeated),
            "frames_color_repeated": len(progress.color_repeated),
            "frames_corrupt": len(progress.corrupt),
            "readout_s": perception.readout if moved else 0.0,
            "depth_delay_s": delay_undone(self.sequence, perception) if moved else None,
            "depth_range_m": list(self.slam.fusion.config.range),
            "depth_contradicted": progress.depth_contradicted or None,
            "depth_used": progress.depth_used / progress.depth_read if progress.depth_read else None,
            "frames_held_out": len(progress.held_out),
            "loops_closed": progress.loops,
            "surfels": surfels.living(),
            "surfels_turned_away": surfels.rejected,
            "bytes_per_surfel": surfels.bytes_per_surfel,
            "bytes_per_labelled_frame": self.slam.associations.bytes_per_frame if self.slam.associations else None,
            "seconds": progress.seconds,
            "frames_per_second": progress.frames_per_second(),
            "stages_ms": {
                stage: {"median": float(np.median(v)), "p95": float(np.percentile(v, 95))}
                for stage, v in progress.stages_ms.items()
            },
            "lost": self._numbers(progress.lost),
            "poor": self._numbers(progress.poor),
            "poor_reason": progress.poor_reason or None,
            "depth_repeated": self._numbers(progress.depth_repeated),
            "color_repeated": self._numbers(progress.color_repeated),
            "corrupt": self._numbers(progress.corrupt),
            "assumptions": list(self.sequence.assumptions),
            "depth_noise": progress.noise and {"at_0.4_m": progress.noise[0], "quadratic": progress.noise[1]},
            "versions": versions(),
        }

    def _numbers(self, indices: list[int]) -> list[int]:
        """Frames by their numbers in the whole recording, as messages name them."""
        return [self.sequence.number_of(index) for index in indices]

    def _state(self) -> dict[str, np.ndarray]:
        """Everything but the map that must be kept to go on."""
        stages = self.slam.stages
        state = {f"{name}_{key}": value for name, stage in stages.items() for key, value in stage.state().items()}
        if self._depth_repeats is not None:
            state |= prefixed("repeats_", self._depth_repeats.state())
        if self._color_repeats is not None:
            state |= prefixed("color_repeats_", self._color_repeats.state())
        if self.slam.associations is not None:
            state["run_events"] = np.array(len(self.slam.associations.events))
        return state | self.progress.state() | {"run_recording": self._recording}

    def _restore(self) -> None:
        saved = as_compared(self.folder.load_config(), self.config)
        about = self.folder.load_recording()
        moved = saved != self.config and is_the_one(about, self.sequence)
        if (replace(saved, sequence=self.config.sequence) if moved else saved) != self.config:
            now = {line.strip() for line in configs.to_yaml(self.config).splitlines()}
            before = [line.strip() for line in configs.to_yaml(saved).splitlines() if line.strip() not in now]
            raise ValueError(
                f"{self.folder.config}: this run was made with other settings ({', '.join(before[:4])}); resume it "
                f"with the same, or use another --out"
            )
        check_unchanged(about, self.sequence, self.folder.final)
        state = self.folder.load_state(stored=self.config.slam.map.memory is not None)
        self.slam.surfels = self.folder.load_map(state, paged=True)
        for name, stage in self.slam.stages.items():
            self._restore_stage(name, stage, state)
        if self._depth_repeats is not None:
            self._restore_stage("repeats", self._depth_repeats, state)
        if self._color_repeats is not None:
            self._restore_stage("color_repeats", self._color_repeats, state)
        with naming(self.folder.state):
            self.progress = Progress.from_state(state)
        if self.progress.before and self.config.extend is None:
            raise ValueError(
                f"{self.folder.final}: was merged from other runs, and has no frames to go on with; make it again: "
                f"`semslam merge` with --overwrite"
            )
        if isinstance(self.slam.track, ListedPoses) and not self.progress.loops:  # which move poses
            self.slam.track.check_unchanged(self.progress.posed(), self.sequence.number_of, self.folder.final)
        self.slam.stepped = self.progress.stepped
        if (associations := self.folder.load_associations(state)) is not None:
            self.slam.remember(associations)
        else:  # what was not kept is not known
            self.slam.associations = None

    def _see_edges_again(self) -> None:
        """Look once more at the depth edges of frames that are done, unless they were judged."""
        edges, done = self._depth_edges, self.progress.next_index
        if edges is None or self.progress.depth_contradicted:
            self._depth_edges = None
            return
        for index in edges.needed:
            if index < done and not self._is_held_out(index) and (frame := self.frames.try_read(index)) is not None:
                edges.see(frame)
        if done > max(edges.needed, default=0):
            self.judge_depth()

    def _restore_stage(self, name: str, stage: Stage, state: dict[str, np.ndarray]) -> None:
        """Hand a stage what it kept; ValueError where it cannot go on from that, with what to do."""
        kept = under_prefix(f"{name}_", state)
        try:
            stage.restore(kept)
        except ValueError as problem:  # what it says is the reason
            raise ValueError(f"{self.folder.final}: cannot go on: {problem}") from problem
        except (KeyError, IndexError, TypeError) as problem:
            raise ValueError(
                f"{self.folder.final}: cannot go on: what it saved of {name} is not what this version of semslam saves "
                f"({type(problem).__name__}: {problem}); begin the run again with --overwrite"
            ) from problem
