"""A pose graph that grows with every keyframe, solved in bounded time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam import poses
from semslam.loops.pose_graph import Edge, disagreement, optimized_poses
from semslam.trajectory import Correction

WHOLE = 150  # nodes that are solved all at once
WINDOW = 50  # newest nodes that are free where the others are fixed
LARGE = (0.02, np.radians(1.0))  # metres and radians that no window should have to swallow


def bounded_poses(T_world: np.ndarray, edges: Sequence[Edge], newest: Sequence[Edge], robust: float) -> np.ndarray:
    """`optimized_poses` of a chain of keyframes with closures, at a cost that does not grow with its length.

    Up to WHOLE nodes all are solved at once. Of longer chains the last WINDOW nodes are free. Where the closures of
    the last one contradict the poses by more than a window should have to swallow, all of the chain shares the
    correction first: WHOLE control poses are solved, and the poses between them follow by interpolation.

    Args:
        T_world: (N, 4, 4).
        edges: from each keyframe to the next, in order, and closures anywhere between and after them: sub-maps that
            meet tie keyframes that are long past.
        newest: those of them that are closures of the last keyframe.
    """
    n = len(T_world)
    if n <= WHOLE:
        return optimized_poses(T_world, edges, robust=robust)
    metres, radians = disagreement(T_world, newest)
    if metres > LARGE[0] or radians > LARGE[1]:
        controls = np.unique(np.linspace(0, n - 1, WHOLE).round().astype(int))
        solved = optimized_poses(T_world[controls], control_edges(T_world, edges, controls), robust=robust)
        T_world = Correction.between(controls, T_world[controls], solved).corrected(np.arange(n), T_world)
    first = n - WINDOW
    recent = [edge for edge in edges if max(edge.i, edge.j) >= first]
    return optimized_poses(T_world, recent, fixed=range(first), robust=robust)


def control_edges(T_world: np.ndarray, edges: Sequence[Edge], controls: np.ndarray) -> list[Edge]:
    """The edges between nodes as edges between `controls` (C,), of which the first and the last node are two.

    The motions from node to node are composed, and their covariances added up. A closure moves to the controls next to
    its ends, as if these were rigidly connected; of several between the same two controls the surest one counts.
    """
    ways = [edge for edge in edges if not edge.closure]
    segment = np.searchsorted(controls, [edge.j for edge in ways])  # of the control at or after the second end
    to_end = poses.inverse(T_world[controls[segment]]) @ T_world[[edge.j for edge in ways]]
    covariance = _moved(np.linalg.inv(np.stack([edge.information for edge in ways])), to_end)
    total = np.zeros((len(controls), 6, 6))
    np.add.at(total, segment, covariance)
    motions = np.tile(np.eye(4), (len(controls), 1, 1))
    for k, edge in zip(segment, ways):
        motions[k] = motions[k] @ edge.T_i_j
    result = [Edge(k - 1, k, motions[k], np.linalg.inv(total[k])) for k in range(1, len(controls))]

    middles = (controls[1:] + controls[:-1]) / 2
    surest: dict[tuple[int, int], Edge] = {}
    closures = [edge for edge in edges if edge.closure]
    ends = np.searchsorted(middles, np.array([(edge.i, edge.j) for edge in closures]).reshape(-1, 2))
    for (a, b), edge in zip(ends.tolist(), closures):
        best = surest.get((a, b))
        if a != b and (best is None or np.trace(edge.information) >= np.trace(best.information)):
            surest[a, b] = edge
    for (a, b), edge in surest.items():
        T_a_i = poses.inverse(T_world[controls[a]]) @ T_world[edge.i]
        T_b_j = poses.inverse(T_world[controls[b]]) @ T_world[edge.j]
        information = np.linalg.inv(_moved(np.linalg.inv(edge.information), T_b_j))
        result.append(Edge(a, b, T_a_i @ edge.T_i_j @ poses.inverse(T_b_j), information, closure=True))
    return result


def _moved(covariance: np.ndarray, T_b_a: np.ndarray) -> np.ndarray:
    """The covariance (..., 6, 6) of a twist in a's frame as one in b's."""
    A = poses.adjoint(T_b_a)
    return A @ covariance @ np.swapaxes(A, -1, -2)
