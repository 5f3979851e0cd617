"""Laws of rigid transforms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from semslam import poses


def twists(count: int = 20, largest: float = 3.0) -> np.ndarray:
    """(count, 6) twists with rotation angles up to `largest` radians, some of them tiny."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate([[0, 1e-12, 1e-7, 1e-5, 1e-3], rng.uniform(0, largest, count - 5)])
    return np.concatenate([rng.uniform(-2, 2, (count, 3)), angles[:, None] * axes], axis=1)


def hat(twist: np.ndarray) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, :3], matrix[:3, 3] = poses.skew(twist[3:]), twist[:3]
    return matrix


def test_log_after_exp_is_the_twist():
    for twist in twists():
        np.testing.assert_allclose(poses.log(poses.exp(twist)), twist, atol=1e-8)


def test_exp_is_the_matrix_exponential():
    for twist in twists():
        np.testing.assert_allclose(poses.exp(twist), expm(hat(twist)), atol=1e-9)


def test_exp_is_rigid_even_for_many_turns():
    for twist in 10 * twists():
        assert poses.is_rigid(poses.exp(twist), 1e-9)


def test_exp_has_no_step_where_the_series_takes_over():
    axis, moved = np.array([0.6, 0.0, 0.8]), np.array([1.0, 2.0, 3.0])
    below, above = (poses.exp(np.concatenate([moved, angle * axis])) for angle in (0.999999e-5, 1.000001e-5))
    assert np.abs(below - above).max() < 1e-9


def test_exp_of_the_opposite_twist_is_the_inverse():
    for twist in twists():
        np.testing.assert_allclose(poses.exp(-twist), poses.inverse(poses.exp(twist)), atol=1e-9)


def test_a_transform_times_its_inverse_is_the_identity():
    T = np.stack([poses.exp(twist) for twist in twists()])
    np.testing.assert_allclose(poses.inverse(T) @ T, np.broadcast_to(np.eye(4), T.shape), atol=1e-12)
    np.testing.assert_allclose(poses.inverse(T), np.linalg.inv(T), atol=1e-10)


def test_the_adjoint_moves_a_twist_through_a_transform():
    T, x = poses.exp([1, 2, 3, 0.3, -0.5, 0.7]), np.array([0.1, -0.2, 0.3, 0.05, 0.2, -0.1])
    np.testing.assert_allclose(T @ poses.exp(x) @ poses.inverse(T), poses.exp(poses.adjoint(T) @ x), atol=1e-12)


def test_many_transforms_at_once_are_those_of_one():
    many = twists(30).reshape(5, 6, 6)
    T = poses.exp(many)
    np.testing.assert_allclose(T, [[poses.exp(twist) for twist in row] for row in many], atol=1e-12)
    np.testing.assert_allclose(poses.log(T), [[poses.log(each) for each in row] for row in T], atol=1e-9)
    np.testing.assert_allclose(poses.adjoint(T), [[poses.adjoint(each) for each in row] for row in T], atol=1e-12)


def test_a_transform_takes_points_as_homogeneous_coordinates_do():
    T, points = poses.exp(twists()[-1]), np.random.default_rng(2).standard_normal((4, 5, 3))
    homogeneous = np.concatenate([points, np.ones((4, 5, 1))], axis=-1) @ T.T
    np.testing.assert_allclose(poses.transform(T, points), homogeneous[..., :3], atol=1e-12)


def test_the_inverse_right_jacobian_is_the_difference_quotient():
    rng, h = np.random.default_rng(1), 1e-6
    for angle in (1e-6, 0.05, 0.2, 1.0, 2.8):
        twist = rng.normal(0, 0.5, 6)
        twist[3:] *= angle / np.linalg.norm(twist[3:])
        T = poses.exp(twist)
        columns = [(poses.log(T @ poses.exp(h * e)) - poses.log(T @ poses.exp(-h * e))) / (2 * h) for e in np.eye(6)]
        np.testing.assert_allclose(poses.inverse_right_jacobian(twist), np.stack(columns, axis=1), atol=1e-6)


def test_skew_is_the_cross_product():
    a, b = np.random.default_rng(1).standard_normal((2, 3))
    np.testing.assert_allclose(poses.skew(a) @ b, np.cross(a, b))


def test_interpolation_starts_at_one_pose_and_ends_at_the_other():
    T_0, T_1 = (poses.exp(twist) for twist in twists(8, 1.0)[-2:])
    np.testing.assert_allclose(poses.interpolate(T_0, T_1, 0.0), T_0, atol=1e-12)
    np.testing.assert_allclose(poses.interpolate(T_0, T_1, 1.0), T_1, atol=1e-9)


def test_half_way_twice_is_the_whole_way():
    T_0, T_1 = (poses.exp(twist) for twist in twists(8, 1.0)[-2:])
    half = poses.interpolate(T_0, T_1, 0.5)
    np.testing.assert_allclose(half @ poses.inverse(T_0) @ half, T_1, atol=1e-9)


def test_interpolation_does_not_depend_on_the_world_frame():
    T_0, T_1, moved = (poses.exp(twist) for twist in twists(9, 1.0)[-3:])
    expected = moved @ poses.interpolate(T_0, T_1, 0.3)
    np.testing.assert_allclose(poses.interpolate(moved @ T_0, moved @ T_1, 0.3), expected, atol=1e-9)


def test_the_rotation_angle_is_the_length_of_the_rotation_vector():
    for twist in twists():
        assert poses.rotation_angle(poses.exp(twist)) == pytest.approx(np.linalg.norm(twist[3:]), abs=1e-7)


def test_orthonormalizing_repairs_rounded_digits_and_changes_nothing_else():
    T = poses.exp(twists()[-1])
    np.testing.assert_allclose(poses.orthonormalized(T), T, atol=1e-12)
    rounded = np.round(T, 3)
    assert not poses.is_rigid(rounded, 1e-6) and poses.is_rigid(poses.orthonormalized(rounded), 1e-12)
    np.testing.assert_allclose(poses.orthonormalized(rounded), T, atol=2e-3)
    assert np.array_equal(poses.orthonormalized(rounded)[:3, 3], rounded[:3, 3])


def test_orthonormalizing_never_returns_a_mirror():
    nearly_flat = np.eye(4)
    nearly_flat[:3, :3] = np.diag([1, 1, -0.01])
    assert np.linalg.det(poses.orthonormalized(nearly_flat)[:3, :3]) == pytest.approx(1)


def test_what_is_not_rigid_is_told():
    T = poses.exp(twists()[-1])
    mirror, stretched, lost, affine = T.copy(), T.copy(), T.copy(), T.copy()
    mirror[:3, 0] *= -1
    stretched[:3, :3] *= 1.01
    lost[0, 3] = np.nan
    affine[3, 0] = 0.1
    assert poses.is_rigid(T) and not any(poses.is_rigid(wrong) for wrong in (mirror, stretched, lost, affine, T[:3]))


def test_a_transform_is_put_together_from_its_parts():
    rotation = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix()
    T = poses.from_rotation_translation(rotation, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(T @ [4, 5, 6, 1], [*(rotation @ [4, 5, 6] + [1, 2, 3]), 1])
