"""Surfaces that a map has twice: the less sure one goes, and nothing that is there once."""

from __future__ import annotations

import numpy as np

from semslam.depth.layers import less_sure_layers


def wall(distance: float, confidence: float, turned: float = 0.0, shift: float = 0.0):
    """A square metre before a camera, 1 cm from surfel to surfel, with 3 mm of noise; turned: radians, of normals."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(0, 1, 0.01) + shift, np.arange(0, 1, 0.01)))
    z = distance + np.random.default_rng(0).normal(0, 0.003, len(x))
    normal = np.array([np.sin(turned), 0, -np.cos(turned)])
    return np.column_stack([x, y, z]), np.tile(normal, (len(x), 1)), np.full(len(x), confidence)


def removed(*walls):
    """Which share of each wall goes."""
    found = less_sure_layers(*(np.concatenate(parts) for parts in zip(*walls)))
    return [part.mean() for part in np.split(found, np.cumsum([len(w[0]) for w in walls])[:-1])]


def test_of_two_layers_the_less_sure_one_goes():
    for apart in (0.03, 0.06, 0.1, 0.14):
        kept, gone = removed(wall(2, 3.0), wall(2 + apart, 1.0))
        assert kept == 0 and gone > 0.99
        gone, kept = removed(wall(2, 1.0), wall(2 + apart, 3.0))
        assert kept == 0 and gone > 0.99


def test_what_is_there_once_stays():
    assert removed(wall(2, 1.0)) == [0]
    assert removed(wall(2, 3.0), wall(2.3, 1.0)) == [0, 0]  # a cupboard before a wall
    assert removed(wall(2, 3.0), wall(2.06, 1.0, turned=np.pi)) == [0, 0]  # the other side of a door
    assert max(removed(wall(2, 3.0), wall(2.1, 1.0, shift=1.0))) < 0.03  # the next stair, but for its edge
    assert len(less_sure_layers(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))) == 0
