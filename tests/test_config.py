"""Configurations from YAML: what is written reads back, and what is wrong is named."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass

import pytest

from networks.training.joint import JointTraining
from networks.training.pose import PoseTraining
from semslam import config
from semslam.depth.multiview import MultiViewConfig
from semslam.engine.labels.surfel_crf import CrfConfig
from semslam.geometry.tsdf_mesh import ReconstructionConfig
from semslam.perception import PerceptionConfig
from semslam.runs.config import RunConfig, settings_of
from semslam.tracking.visual.config import VisualConfig


@dataclass(frozen=True)
class Part:
    rate: float = 0.5
    size: tuple[int, int] = (3, 4)


@dataclass(frozen=True)
class Mixed:
    pair: tuple[config.Count, config.Share] = (3, 0.5)

    def __post_init__(self) -> None:
        config.check_ranges(self, "")


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
        ("{name: a, name: b}", "name is there twice"),
        ("{name: 3}", "`name` is 3, expected text"),
        ("{name: a, fast: 1}", "`fast` is 1, expected true or false"),
        ("{name: a, one: {rate: quick}}", "`one.rate` is 'quick', expected a number"),
        ("{name: a, one: {rate: true}}", "`one.rate` is True, expected a number"),
        ("{name: a, parts: 3}", "`parts` is 3, expected a list"),
        ("{name: a, one: 3}", "`one` is 3, expected settings by name: rate, size"),
        ("- name", "expected settings by name: name, parts, one"),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "no aliases"),
        ("[" * 3000, "nested more than"),
        ("{a: " * 3000, "nested more than"),
        ("{name: a, limit: .inf}", "`limit` is inf, expected a number below"),
        ("{name: a, one: {rate: .nan}}", "`one.rate` is nan, expected a number below"),
        ("{name: a, limit: 1e999}", "`limit` is inf"),
        ("{name: a, one: {size: [1" + "0" * 100 + ", 2]}}", "`one.size` is 1000"),
        ("limit: " + "9" * 10_000, "not YAML"),
        ("limit: !!int ''", "not YAML"),
        ("name: 2020-99-99", "not YAML"),
        ("? [a]\n: b", "not YAML"),
        ("name: " + "x" * 2_000_000, "expected at most"),
        ("\0", "is not a text file"),
    ],
)
def test_a_file_that_would_take_all_memory_or_no_number_is_one_line(tmp_path, text, said):
    with pytest.raises(ValueError) as problem:
        read(tmp_path, text)
    assert said in str(problem.value) and len(str(problem.value)) < 500
    assert str(tmp_path / "settings.yaml") in str(problem.value) and "\n" not in str(problem.value)


def test_infinity_is_a_value_where_it_means_something():
    settings = settings_of(None, {}, ["slam.labels.max_views=.inf"])
    assert settings.slam.labels.max_views == float("inf")
    assert config.from_dict(config.parsed_yaml(config.to_yaml(settings)), RunConfig, "") == settings


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a YAML configuration"):
        config.load(tmp_path / "none.yaml", Whole)


# changed one by one


def test_a_setting_is_changed_by_its_dotted_name_and_all_others_stay():
    changed = config.updated(RunConfig("room"), dict([config.parsed("slam.fusion.gate=2e-2")]), "--set")
    assert changed.slam.fusion.gate == 0.02
    back = config.updated(changed, {"slam.fusion.gate": RunConfig().slam.fusion.gate}, "--set")
    assert back == RunConfig("room")


def test_a_group_that_is_named_in_part_keeps_the_defaults_of_its_place(tmp_path):
    """Closing loops registers with other defaults than tracking does."""
    (tmp_path / "a.yaml").write_text("slam: {loops: {registration: {tukey: 5.0}}}")
    registration = config.load(tmp_path / "a.yaml", RunConfig).slam.loops.registration
    assert registration.tukey == 5.0
    usual = RunConfig().slam
    assert registration.converged == usual.loops.registration.converged != usual.tracking.registration.converged


@pytest.mark.parametrize(
    "assignments",
    [
        ["slam.fusion.gate=0.02", "slam.fusion={far: 7}"],
        ["slam.fusion={gate: 0.02}", "slam.fusion={far: 7}"],
        ["slam={fusion: {far: 3, gate: 0.02}}", "slam.fusion.far=7"],
        ["slam.fusion={near: 6.5, gate: 0.02}", "slam.fusion.far=7"],  # wrong until both are set
    ],
)
def test_a_later_assignment_keeps_what_earlier_ones_set_in_its_group(assignments):
    fusion = settings_of(None, {}, assignments).slam.fusion
    assert (fusion.gate, fusion.far) == (0.02, 7.0)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["slam=3", "slam.fusion.gate=0.02"], "--set: `slam` is set to 3, and settings within it"),
        (["frames=2", "frames.x=1"], "--set: `frames` is set to 2, and settings within it"),
        (["slam.fusion.gate=0.02", "slam.fusion=3"], "--set: `slam.fusion` is set to 3, and settings within it"),
    ],
)
def test_a_name_that_is_both_a_value_and_a_group_is_one_line(assignments, said):
    with pytest.raises(ValueError) as problem:
        settings_of(None, {}, assignments)
    assert said in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("slam.fusion.gte=1", "--set: `slam.fusion`: unknown setting 'gte'; known ones are near, far"),
        ("slam.fusion.gate=wide", "--set: `slam.fusion.gate` is 'wide', expected a number"),
        ("slam.perception.depth=lidar", "`slam.perception.depth` is 'lidar', expected one of sensor, predicted"),
        ("slam.fusion=3", "`slam.fusion` is 3, expected settings by name: "),
        ("slam.fusion.gate", "expected NAME=VALUE"),
        ("slam.fusion.gate=[", "the value is not YAML"),
    ],
)
def test_an_assignment_that_cannot_be_is_one_line(assignment, said):
    with pytest.raises(ValueError) as problem:
        settings_of(None, {}, [assignment])
    assert said in str(problem.value) and "\n" not in str(problem.value)


def test_options_win_over_the_file_and_assignments_over_both(tmp_path):
    (tmp_path / "a.yaml").write_text("{hold_out: 3, slam: {fusion: {gate: 0.03, far: 4}}}")
    settings = settings_of(tmp_path / "a.yaml", {"hold_out": 5, "slam.fusion.far": 6.0}, ["slam.fusion.far=7"])
    assert (settings.hold_out, settings.slam.fusion.gate, settings.slam.fusion.far) == (5, 0.03, 7.0)


def test_a_choice_is_checked_where_it_is_made_in_python_too():
    with pytest.raises(ValueError, match=r"`slam.perception.labels` is 'some', expected one of predicted, truth, none"):
        PerceptionConfig(labels="some")


# explained


def test_every_setting_is_explained_with_its_default_and_none_is_left_out():
    rows = {row.name: row for row in config.explained(RunConfig)}

    def names(values, prefix=""):
        for key, value in values.items():
            yield from names(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    assert list(rows) == list(names(config.to_dict(RunConfig())))
    assert not [name for name, row in rows.items() if not row.meaning or not row.kind]
    for name, row in rows.items():  # the default, read back, changes nothing
        assert settings_of(None, {}, [f"{name}={row.default}"]) == RunConfig(), name


def test_units_stand_apart_from_meanings():
    rows = {row.name: row for row in config.explained(RunConfig)}
    gate = rows["slam.fusion.gate"]
    assert (gate.kind, gate.default, gate.unit) == ("float", "0.01", "metres")
    assert gate.meaning.startswith("depth gate of the association")
    assert rows["slam.perception.depth"].kind == "sensor | predicted"
    assert rows["slam.loops.registration.converged"].default == "0.0003"
    for row in rows.values():  # lengths in words, or in the name
        assert row.unit or not row.name.endswith("_deg"), row.name


def test_what_a_group_says_of_its_values_comes_with_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("slam: {fusion: {near: 3.0, far: 2.0}}\n")
    with pytest.raises(ValueError, match=rf"{path}: `slam.fusion.near` is 3.0 and `far` 2.0"):
        config.load(path, RunConfig)


# ranges


def test_every_number_of_the_system_has_a_range_and_its_error_names_it():
    rows = [row for row in config.explained(RunConfig) if re.search(r"\b(int|float)\b", row.kind)]
    assert len(rows) > 100
    for row in rows:
        value = "[-3]" if row.kind.startswith("list") else "-3"
        with pytest.raises(ValueError, match=rf"`{row.name}` is -3") as problem:
            settings_of(None, {}, [f"{row.name}={value}"])
        assert "\n" not in str(problem.value)


def unbounded(kind: type, place: str) -> Iterator[str]:
    """The numbers of a type, and of the dataclasses in it, whose annotation has no range."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated and isinstance(arguments[1], config.Range):
        return
    if kind in (int, float):
        yield place
    elif is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            yield from unbounded(hint, f"{place}.{name}")
    elif origin is not typing.Literal:
        for inner in arguments:
            yield from unbounded(inner, place)


@pytest.mark.parametrize("kind", [RunConfig, JointTraining, PoseTraining, CrfConfig, ReconstructionConfig])
def test_no_number_of_any_configuration_is_without_a_range(kind):
    assert not list(unbounded(kind, kind.__name__))


def wrong_values(hint: typing.Any) -> Iterator[typing.Any]:
    """Values of a type, each with one number below the range that its annotation has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated and isinstance(arguments[1], config.Range):
        yield arguments[0](arguments[1].least - 1)
    elif origin is tuple:
        inner = arguments[:1] if Ellipsis in arguments else arguments
        right = [max(part.__metadata__[0].least, 1) if hasattr(part, "__metadata__") else None for part in inner]
        for place, part in enumerate(inner):
            yield from ((*right[:place], wrong, *right[place + 1 :]) for wrong in wrong_values(part))
    elif origin is dict:
        yield from ({"x": wrong} for wrong in wrong_values(arguments[1]))
    elif origin in (typing.Union, types.UnionType):
        yield from (wrong for part in arguments for wrong in wrong_values(part))


def configurations(hint: typing.Any) -> Iterator[type]:
    """The dataclasses that a type names, and those within them."""
    if is_dataclass(hint):
        yield hint
        for inner in typing.get_type_hints(hint, include_extras=True).values():
            yield from configurations(inner)
    for inner in typing.get_args(hint):
        yield from configurations(inner)


def required_of(kind: type) -> dict[str, typing.Any]:
    """Values for what has no default."""
    hints, known = typing.get_type_hints(kind), {str: "x", int: 1, float: 1.0}
    return {
        f.name: () if typing.get_origin(hints[f.name]) is tuple else known.get(hints[f.name]) or hints[f.name]("x")
        for f in fields(kind)
        if f.default is MISSING and f.default_factory is MISSING
    }


def test_every_class_of_a_configuration_checks_its_ranges_in_python_too():
    roots = (RunConfig, JointTraining, PoseTraining, CrfConfig, ReconstructionConfig)
    kinds = {kind for root in roots for kind in configurations(root)}
    assert len(kinds) > 15
    for kind in kinds:
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            for wrong in wrong_values(hint):
                with pytest.raises(ValueError, match=rf"{name}(\.x)?` is .*, expected"):
                    kind(**required_of(kind) | {name: wrong})


def test_each_member_of_a_tuple_has_its_own_type_and_range():
    assert config.from_dict({"pair": [2, 0.25]}, Mixed, "").pair == (2, 0.25)
    for pair, said in (([2, 3], "`pair` is 3"), ([0.5, 0.5], "`pair` is 0.5, expected a whole"), ([1], "has 1 values")):
        with pytest.raises(ValueError, match=said):
            config.from_dict({"pair": pair}, Mixed, "")
    with pytest.raises(ValueError, match=r"`pair` is 1\.5, expected 0 to 1"):
        Mixed((1, 1.5))


def test_values_by_name_have_types_and_ranges(tmp_path):
    with pytest.raises(ValueError, match=r"`shares.depth` is 'much', expected a number"):
        read(tmp_path, "{name: a, shares: {depth: much}}")
    with pytest.raises(ValueError, match=r"`shares` is 3, expected values by name"):
        read(tmp_path, "{name: a, shares: 3}")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ("[]", "need one of pyramid 1 with 1, 2, 4, 8 or 16 for every"),
        ("[{every: 4, pyramid: 2, iterations: 5, gate: 0.1}]", "need one of pyramid 1"),
        ("[{every: 3, pyramid: 1, iterations: 5, gate: 0.1}]", "need one of pyramid 1"),
        ("[{every: 0, pyramid: 1, iterations: 5, gate: 0.1}]", "every` is 0, expected 1 to 1e+09"),
        (
            "[{every: 4, pyramid: 1, iterations: 5, gate: 0.1}, {every: 1, pyramid: 1, iterations: 5, gate: 0.1}]",
            "are of pyramid [1, 1], expected coarsest first, each once",
        ),
    ],
)
def test_levels_that_registration_cannot_search_are_refused(levels, said):
    for group in ("tracking", "loops"):
        with pytest.raises(ValueError) as problem:
            settings_of(None, {}, [f"slam.{group}.registration.levels={levels}"])
        assert said in str(problem.value) and "registration.levels" in str(problem.value)


def test_a_range_is_checked_where_settings_are_made_in_python_too():
    with pytest.raises(ValueError, match=r"`slam.visual.features` is 0, expected 1 to 100000"):
        VisualConfig(features=0)
    with pytest.raises(ValueError, match=r"`slam.multiview.baselines` is nan, expected more than 0"):
        MultiViewConfig(baselines=(0.1, float("nan")))
