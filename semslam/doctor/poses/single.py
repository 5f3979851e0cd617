"""Poses that contradict the images where most others do not, and worlds far from the origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.doctor import flow
from semslam.doctor.finding import Finding
from semslam.doctor.flow import Tracks
from semslam.frame import evenly_spread, first_few
from sequences import Sequence as Recording

OUTLIER = 8.0  # times the usual deviation from smooth motion
CONFIRMED = 16  # suspected steps in a row that the images confirm, after which the less suspect ones are believed
UNFOLLOWED = 64  # suspected steps that cannot be followed, in dark images for example, after which none is tried
REACH = 12  # frames across which points are followed, at most
STRETCHES = 5  # of poses that stay the same, in which points are followed
SHORT = 6  # frames of a piece that points are followed across
SAME_WORLD = 45.0  # pixels at 640 wide by which a jump is too small to make another world
NOTABLE_SLIP = 28.0  # the same for one that is worth a word; those of good recordings, as 7-Scenes, reach 23
RETURN = 0.3  # of a jump: how exactly poses have to come back from another world
FEW = 0.1  # of the frames: so many in other worlds are left out; where there are more, no world is the right one
RIGID = 0.6  # of the followed points: so many have to be explained by one motion
FROZEN = 1e-9  # between elements of poses that are the same
LONG_ENOUGH = 3  # steps without a change, at least
UNUSUAL = 3  # times the usual number of frames with one pose: poses may be less frequent than images
MOST_WRONG = 0.5  # of the frames: where more have a wrong pose, those of the others are worth nothing
FAR = 1000.0  # metres from the origin; there float32 keeps tenths of a millimetre
WRONG = -1  # the world of frames that those before and after them contradict


class Contradicted(NamedTuple):
    """What the images say against some of the poses; frames in order."""

    wrong: tuple[int, ...] = ()  # whose pose does not fit those of the others
    jumps: tuple[int, ...] = ()  # after which the poses go on in another world
    slips: tuple[int, ...] = ()  # after which the poses are a few pixels off from there on

    def mostly_wrong(self, frames: int) -> bool:
        """Whether so many of a recording's frames are wrong that the others make no map."""
        return len(self.wrong) > MOST_WRONG * frames


def contradicted(recording: Recording) -> Contradicted:
    """Frames whose pose the images contradict, while they fit most of the others; and jumps of the whole world.

    The poses alone name the suspects: steps that leave the smooth path, and poses that stay the same. Points followed
    from frame to frame decide. Nothing is found without poses or depth.
    """
    if not recording.has_poses or not recording.has_depth:
        return Contradicted()
    frozen = _frozen(recording)
    path = _Path(recording, [None if i in frozen else T for i, T in enumerate(recording.poses or ())])
    breaks = path.breaks()
    worlds, slips = _worlds(path, breaks)
    sizes = {n: sum(number == n for number in worlds.values()) for n in set(worlds.values()) - {WRONG}}
    main = max(sizes, key=lambda n: (sizes[n], -n), default=WRONG)
    wrong = {i for i, number in worlds.items() if number == WRONG} | frozen
    right = [i for i, number in worlds.items() if number != WRONG]
    jumps = {a for a, b in pairwise(right) if worlds[a] != worlds[b]}
    if len(right) - sizes.get(main, 0) <= FEW * len(recording):
        wrong |= {i for i in right if worlds[i] != main}
        jumps = set()
    return Contradicted(*(tuple(sorted(found)) for found in (wrong, jumps, slips)))


def findings_of(found: Contradicted, frames: int, number_of: Callable[[int], int]) -> list[Finding]:
    """The same as what is wrong with a recording of so many frames; what makes every map wrong first.

    number_of: the number that people know a frame by.
    """
    findings, mostly_wrong = [], found.mostly_wrong(frames)
    found = Contradicted(*(tuple(map(number_of, indices)) for indices in found))
    if found.jumps:
        what = f"the poses jump after {listed(found.jumps)}, and the images do not"
        remedy = "the world changes there: map one part (--start, --frames), or track it (--poses tracked)"
        findings.append(Finding("error", what, remedy))
    if mostly_wrong:
        what = f"the poses of {listed(found.wrong)}, of {frames} in all, do not fit the images"
        findings.append(Finding("error", what, "too few are left to map: track the recording (--poses tracked)"))
    elif found.wrong:
        what = f"the poses of {listed(found.wrong)} do not fit the images, while those around do"
        findings.append(Finding("error", what, "remove these poses (a line of nan), or correct them"))
    if found.slips:
        what = f"the poses slip by a few pixels after {listed(found.slips)}"
        findings.append(Finding("warning", what, "surfaces are doubled there; --poses refined or tracked mends it"))
    return findings


def listed(frames: Sequence[int]) -> str:
    """Frames in words: all of a few, the first of many."""
    return f"frame {frames[0]}" if len(frames) == 1 else f"{len(frames)} frames ({first_few(frames)})"


class _Path:
    """Poses of a recording, held against a smooth path and against its images."""

    def __init__(self, recording: Recording, T_world_camera: Sequence[np.ndarray | None]) -> None:
        self.recording, self.camera = recording, recording.camera
        self.posed = {i: T for i, T in enumerate(T_world_camera) if T is not None}
        self.depth = flow.median_depth(recording)
        self.notable = flow.notable(recording.camera)
        self.deviations = dict(self._deviations())
        usual = float(np.median(list(self.deviations.values()))) if self.deviations else 0.0
        self.usual = max(usual, 0.25 * self.notable)

    def breaks(self) -> dict[int, tuple[int, np.ndarray]]:
        """The frames whose step to the next frame with a pose contradicts the images: that frame, and T_next_frame
        (4, 4) as the images tell it."""
        least = max(OUTLIER * self.usual, 4 * self.notable)
        suspects = [i for i, deviation in self.deviations.items() if deviation > least]
        after = dict(pairwise(self.posed))
        before = {b: a for a, b in after.items()}
        steps = [a for i in sorted(suspects, key=lambda i: -self.deviations[i]) for a in (before.get(i), i)]
        found: dict[int, tuple[int, np.ndarray]] = {}
        confirmed = unfollowed = 0
        for a in dict.fromkeys(a for a in steps if a in after):
            if (tracks := self.followed(a, after[a])) is None:  # which confirms nothing
                if (unfollowed := unfollowed + 1) > UNFOLLOWED:
                    break
                continue
            motion = tracks.motion(self.camera) if self.misplaced(tracks) else None
            if motion is not None and motion[1] > RIGID:
                found[a], confirmed = (after[a], motion[0]), 0
            elif (confirmed := confirmed + 1) > CONFIRMED:
                break
        return dict(sorted(found.items()))

    def followed(self, a: int, b: int) -> Tracks | None:
        """Points of one frame in a later one; None where they cannot be followed."""
        return flow.followed(self.recording, range(a, b + 1)) if b - a <= REACH else None

    def misplaced(self, tracks: Tracks) -> bool:
        """Whether two frames' poses contradict the points that were followed from one to the other."""
        T_last_first = poses.inverse(self.posed[tracks.last]) @ self.posed[tracks.first]
        residual = tracks.residual(self.camera, T_last_first)
        return residual > max(3 * self.notable, 0.5 * tracks.flow, 2 * self.usual)

    def apart(self, T_a: np.ndarray, T_b: np.ndarray) -> float:
        """About how many pixels the image of one pose lies beside that of another."""
        T = poses.inverse(T_a) @ T_b
        return self.camera.fx * (float(np.linalg.norm(T[:3, 3])) / self.depth + poses.rotation_angle(T))

    def _deviations(self) -> Iterator[tuple[int, float]]:
        """Frames with two more poses around, and about how many pixels theirs lies off the path between these."""
        frames, times = list(self.posed), self.recording.timestamps
        last = len(frames) - 1
        for k, i in enumerate(frames):
            around = (k - 1, k + 1) if 0 < k < last else ((1, 2) if k == 0 else (k - 2, k - 1))
            if min(around) < 0 or max(around) > last:
                continue
            a, b = (frames[j] for j in around)
            if times[b] > times[a]:
                fraction = float((times[i] - times[a]) / (times[b] - times[a]))
                yield i, self.apart(poses.interpolate(self.posed[a], self.posed[b], fraction), self.posed[i])


def _worlds(path: _Path, breaks: dict[int, tuple[int, np.ndarray]]) -> tuple[dict[int, int], set[int]]:
    """The number of the world that the pose of each frame is in, and the frames after which poses slip within a world;
    WRONG for few frames between two pieces that agree.

    What the images tell of the motion across a break says how far the next piece lies from where it should. Poses that
    come back to nearly where those of an earlier piece would be are in the world of that piece.
    """
    if not path.posed:
        return {}, set()
    frames = list(path.posed)
    cuts = [k + 1 for k, i in enumerate(frames) if i in breaks]
    pieces = [frames[a:b] for a, b in pairwise([0, *cuts, len(frames)])]
    T_first_world = [np.eye(4)]
    worlds, slips = [0], set[int]()
    usual_width = path.camera.width / 640
    for k, piece in enumerate(pieces[1:], 1):
        last, first = pieces[k - 1][-1], piece[0]
        if k > 1 and len(pieces[k - 1]) <= SHORT and worlds[k - 2] != WRONG:
            across = path.followed(pieces[k - 2][-1], first)
            if across is not None and not path.misplaced(across):
                worlds[k - 1] = WRONG
                slips.discard(pieces[k - 2][-1])
                worlds.append(worlds[k - 2])
                continue
        T = T_first_world[worlds[k - 1]] @ path.posed[last] @ poses.inverse(breaks[last][1])  # of `first`
        off = [path.apart(T_first @ path.posed[first], T) for T_first in T_first_world]
        nearest = int(np.argmin(off))
        if off[nearest] > max(SAME_WORLD * usual_width, RETURN * off[worlds[k - 1]]):
            nearest = len(T_first_world)
            T_first_world.append(T @ poses.inverse(path.posed[first]))
        elif nearest == worlds[k - 1] and off[nearest] > NOTABLE_SLIP * usual_width:
            slips.add(last)
        worlds.append(nearest)
    return {i: world for piece, world in zip(pieces, worlds) for i in piece}, slips


def _frozen(recording: Recording) -> set[int]:
    """Frames with the very pose of the frame before, during which the camera moved."""
    posed = recording.poses or ()
    same = [a is not None and b is not None and bool(np.abs(a - b).max() < FROZEN) for a, b in pairwise(posed)]
    found: set[int] = set()
    starts = [0, *(i + 1 for i, held in enumerate(same) if not held)]
    groups = list(pairwise([*starts, len(posed)]))  # of frames with one pose
    usual = float(np.median([last - first for first, last in groups])) if len(groups) > 1 else 1.0
    least = max(LONG_ENOUGH, UNUSUAL * (usual - 1))
    for first, last in ((first, end - 1) for first, end in groups):
        if last - first >= least and _moves(recording, first, last):
            found.update(range(first + 1, last + 1))
    return found


def _moves(recording: Recording, first: int, last: int) -> bool:
    """Whether the camera moves from a frame to a later one; told from a few stretches on the way."""
    for start in evenly_spread(range(first, last), STRETCHES):
        tracks = flow.followed(recording, range(start, min(start + SHORT, last) + 1))
        motion = (
            None
            if tracks is None or tracks.flow < 3 * flow.notable(recording.camera)
            else tracks.motion(recording.camera)
        )
        if motion is not None and motion[1] > RIGID:
            return True
    return False


def far_world(recording: Recording) -> list[Finding]:
    """Whether the camera is so far from the origin that single precision loses digits."""
    positions = [T[:3, 3] for T in recording.poses or () if T is not None]
    distance = float(np.abs(positions).max()) if positions else 0.0
    if distance <= FAR:
        return []
    kept = 1e3 * float(np.spacing(np.float32(distance)))
    what = f"the camera is up to {distance:.0f} m from the origin (map coordinates?)"
    remedy = f"single precision keeps {kept:.2g} mm there: other programs may need positions that start at the origin"
    return [Finding("hint", what, remedy)]
