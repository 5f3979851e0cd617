"""Laws of label sets, their files, colours and remapping."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from semslam.labels import (
    LABEL_SETS,
    label_set,
    remap_arg_max,
    remap_labels,
    remap_probabilities,
    remapping,
    voc_palette,
)


@pytest.mark.parametrize("name", LABEL_SETS)
def test_file_ids_there_and_back_are_the_same(name):
    labels = LABEL_SETS[name]
    ids = np.append(np.arange(len(labels)), labels.unlabelled).astype(labels.dtype)[None]
    assert np.array_equal(labels.from_file_ids(labels.to_file_ids(ids), "x.png"), ids)


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_class_has_a_name_and_a_colour_of_its_own(name):
    labels = LABEL_SETS[name]
    assert len(set(labels.classes)) == len(labels)
    for colors in labels.palettes.values():
        assert colors.shape == (len(labels), 3) and len(np.unique(colors, axis=0)) == len(labels)


def test_sizes_are_those_of_the_names():
    sizes = {"nyu894": 894, "nyu40": 40, "nyu13": 13, "kitti6": 6, "deeploc10": 10}
    assert {name: len(labels) for name, labels in LABEL_SETS.items()} == sizes


def test_void_of_nyu_files_is_unlabelled_and_wall_is_class_0():
    nyu40 = LABEL_SETS["nyu40"]
    assert nyu40.from_file_ids(np.array([[0, 1, 40]], np.uint8), "x.png").tolist() == [[255, 0, 39]]
    assert nyu40.id_of("wall") == 0 and nyu40.id_of("otherprop") == 39


def test_deeploc_files_count_from_0():
    assert LABEL_SETS["deeploc10"].from_file_ids(np.array([[0, 9, 255]], np.uint8), "x.png").tolist() == [[0, 9, 255]]


def test_an_id_outside_the_set_is_named_with_its_file():
    with pytest.raises(ValueError, match=r"label40/7\.png: label id 41 is outside nyu40.*1\.\.40"):
        LABEL_SETS["nyu40"].from_file_ids(np.array([[1, 41]], np.uint8), "label40/7.png")
    with pytest.raises(ValueError, match="label 40 is outside nyu40"):
        LABEL_SETS["nyu40"].to_file_ids(np.array([[40]], np.uint8))


def test_a_colour_coded_label_image_is_refused():
    with pytest.raises(ValueError, match=r"a\.png: labels are uint8 of shape \(2, 2, 3\)"):
        LABEL_SETS["nyu40"].from_file_ids(np.zeros((2, 2, 3), np.uint8), "a.png")


def test_unknown_names_name_the_known_ones():
    with pytest.raises(ValueError, match="nyu13"):
        label_set("nyu14")
    with pytest.raises(ValueError, match="bookshelf"):
        LABEL_SETS["nyu40"].id_of("shelf")
    with pytest.raises(ValueError, match="nyu894 -> nyu40 -> nyu13"):
        remapping("nyu13", "kitti6")


def test_voc_colours_are_the_published_ones():
    assert voc_palette(3).tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert voc_palette(40)[39].tolist() == [64, 0, 64]


def test_unlabelled_is_black_in_every_scheme():
    for name, schemes in {"nyu40": ("voc", "scannet"), "nyu13": ("scenenet", "semanticfusion")}.items():
        for scheme in schemes:
            labels = replace(LABEL_SETS[name], colors=LABEL_SETS[name].palettes[scheme])
            colored = labels.colorize(np.array([[0, 255]], np.uint8))
            assert colored[0, 0].any() and not colored[0, 1].any()


def test_known_classes_of_the_thirteen():
    nyu40, nyu13 = LABEL_SETS["nyu40"], LABEL_SETS["nyu13"]
    expected = {"door": "wall", "blinds": "window", "desk": "table", "mirror": "objects", "floor mat": "floor"}
    table = remapping("nyu40", "nyu13")
    for source, target in expected.items():
        assert nyu13.classes[table[nyu40.id_of(source)]] == target


def test_the_894_table_is_the_official_one(shared_data):
    from scipy.io import loadmat

    official = loadmat(shared_data / "nyuv2_meta" / "classMapping40.mat")["mapClass"].ravel()
    assert np.array_equal(remapping("nyu894", "nyu40") + 1, official)


def test_remapping_in_two_steps_is_remapping_in_one():
    labels = np.append(np.arange(894), 65535).astype(np.uint16)[None]
    in_two = remap_labels(remap_labels(labels, "nyu894", "nyu40"), "nyu40", "nyu13")
    assert np.array_equal(in_two, remap_labels(labels, "nyu894", "nyu13"))
    assert in_two[0, -1] == 255 and in_two.dtype == np.uint8


def test_remapping_to_itself_changes_nothing():
    assert np.array_equal(remapping("nyu40", "nyu40"), np.arange(40))


def test_remapped_probabilities_are_sums_over_the_merged_classes():
    p = np.random.default_rng(0).random((3, 4, 40)).astype(np.float32)
    merged, table = remap_probabilities(p, "nyu40", "nyu13"), remapping("nyu40", "nyu13")
    expected = np.zeros((3, 4, 13), np.float32)
    for source in range(40):
        expected[..., table[source]] += p[..., source]
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, expected, rtol=1e-5)


def test_remapping_one_hot_probabilities_is_remapping_labels():
    one_hot = np.eye(40, dtype=np.float32)
    labels = np.arange(40, dtype=np.uint8)
    expected = remap_labels(labels, "nyu40", "nyu13")
    assert np.array_equal(remap_probabilities(one_hot, "nyu40", "nyu13").argmax(-1), expected)
    assert remap_probabilities(one_hot[:0], "nyu40", "nyu13").shape == (0, 13)  # a part of a map that has no surfels
    assert np.array_equal(remap_arg_max(one_hot, "nyu40", "nyu13"), expected)


def test_many_unlikely_classes_win_by_their_sum_but_not_by_arg_max():
    p = np.zeros((1, 40), np.float32)
    p[0, LABEL_SETS["nyu40"].id_of("sofa")] = 0.4
    for name in ("towel", "bag", "pillow"):
        p[0, LABEL_SETS["nyu40"].id_of(name)] = 0.2
    assert LABEL_SETS["nyu13"].classes[remap_probabilities(p, "nyu40", "nyu13").argmax()] == "objects"
    assert LABEL_SETS["nyu13"].classes[remap_arg_max(p, "nyu40", "nyu13")[0]] == "sofa"


def test_pixels_without_probabilities_stay_unlabelled():
    assert remap_arg_max(np.zeros((2, 40), np.float32), "nyu40", "nyu13").tolist() == [255, 255]


def test_every_label_image_of_the_shared_data_is_inside_the_set(shared_data):
    paths = sorted((shared_data / "redkitchen" / "label40").glob("*.png"))[:5]
    assert len(paths) == 5
    for path in paths:
        labels = LABEL_SETS["nyu40"].from_file_ids(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), path)
        assert ((labels < 40) | (labels == 255)).all()
