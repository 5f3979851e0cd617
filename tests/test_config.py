"""Configurations from YAML: what is written reads back, and what is wrong is named."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from semslam import config
from semslam.runs.run import RunConfig


@dataclass(frozen=True)
class Part:
    rate: float = 0.5
    size: tuple[int, int] = (3, 4)


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = (Part(),)
    one: Part = field(default_factory=Part)
    limit: float | None = None
    shares: dict[str, float] | None = None
    fast: bool = False


def read(tmp_path, text: str):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return config.load(path, Whole)


@pytest.mark.parametrize(
    "settings",
    [Whole("a"), Whole("b", (Part(1.0), Part(2.0, (5, 6))), Part(0.1), 3.0, {"x": 0.5}, True)],
)
def test_what_is_saved_reads_back_the_same(tmp_path, settings):
    config.save(tmp_path / "settings.yaml", settings)
    assert config.load(tmp_path / "settings.yaml", Whole) == settings


def test_a_run_with_all_of_its_defaults_reads_back_the_same(tmp_path):
    config.save(tmp_path / "config.yaml", RunConfig("room"))
    assert config.load(tmp_path / "config.yaml", RunConfig) == RunConfig("room")


def test_what_is_left_out_has_its_default(tmp_path):
    assert read(tmp_path, "name: a") == Whole("a")


def test_numbers_are_read_as_people_write_them(tmp_path):
    assert read(tmp_path, "{name: a, one: {rate: 1e-3}, limit: 2}") == Whole("a", one=Part(0.001), limit=2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: a, speed: 3}", "unknown setting 'speed'; known ones are name, parts, one"),
        ("{name: a, one: {rte: 3}}", "unknown setting 'rte'; known ones are rate, size"),
        ("fast: true", "lacks name"),
        ("{name: 3}", "name: found 3, expected str"),
        ("{name: a, fast: 1}", "fast: found 1, expected bool"),
        ("{name: a, one: {rate: quick}}", "rate: found 'quick', expected a number"),
        ("{name: a, one: {rate: true}}", "rate: found True, expected a number"),
        ("{name: a, parts: 3}", "parts: found 3, expected a list"),
        ("{name: a, one: 3}", "one: found 3, expected settings of Part"),
        ("- name", "expected settings of Whole"),
        ("name: [", "not YAML"),
        ("name: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path, text, said):
    with pytest.raises(ValueError) as problem:
        read(tmp_path, text)
    assert said in str(problem.value)
    assert str(tmp_path / "settings.yaml") in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a YAML configuration"):
        config.load(tmp_path / "none.yaml", Whole)
