"""The pipeline file: an answer, or errors that say where, what was found and what was expected."""

import contextlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from queue_insights import pipeline
from queue_insights.errors import InputError

KARAOKE = (pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def of(text: str) -> pipeline.Pipeline:
        file = tmp_path / "file.yaml"
        file.write_text(text, encoding="utf-8")
        return pipeline.load(file)

    return of


def test_karaoke_is_the_pipeline_of_the_design() -> None:
    found = pipeline.load()
    assert [(step.stage, step.task) for step in found.steps] == [
        ("lyrics_acquired", "download"),
        ("audio_ready", "align"),
        ("aligned", "translate"),
        ("translated", "separate"),
        ("separated", "segment"),
        ("segmented", "enhance"),
        ("enhanced", "clip"),
    ]
    assert {step.stuck_after for step in found.steps} == {timedelta(minutes=30)}
    assert {step.max_attempts for step in found.steps} == {3}
    assert found.terminal == ("ready", "failed")
    assert found.tracks.id == found.tasks.track_id == "spotify_track_id"


def test_steps_are_in_the_order_of_stages_and_may_set_their_own_limits(load: Any) -> None:
    found = load("""
        name: own
        tracks: {table: t, id: i}
        tasks: {table: k, track_id: i}
        stages: [one, two, three]
        terminal: []
        stuck_after: 1h30m
        steps:
          - {stage: three, task: last, max_attempts: 9}
          - {stage: one, task: b, stuck_after: 90s}
          - {stage: one, task: a}
    """)
    assert [step.task for step in found.steps] == ["b", "a", "last"]
    assert [step.stuck_after.total_seconds() for step in found.steps] == [90, 5400, 5400]
    assert [step.max_attempts for step in found.steps] == [3, 3, 9]
    assert found.previous(found.steps[2]) == ("b", "a")  # past a stage where nothing is due
    assert found.previous(found.steps[0]) == found.previous(found.steps[1]) == ()


def test_the_fingerprint_changes_with_meaning_and_not_with_layout(load: Any) -> None:
    same = load(yaml.safe_dump(yaml.safe_load(KARAOKE)))
    assert same.fingerprint == pipeline.load().fingerprint
    for old, new in (("30m", "31m"), ("max_attempts: 3 ", "max_attempts: 4 "), ("[ready, ", "[")):
        assert load(KARAOKE.replace(old, new, 1)).fingerprint != same.fingerprint


WRONG = {
    "an unknown key": (
        "terminal:",
        "terminals: []\nterminal:",
        "terminals: .*did you mean 'terminal'",
    ),
    "an unknown key of a table": ("  title: title", "  titel: title", "tracks.titel: .* 'title'"),
    "an unknown key of a step": ("task: clip", "task: clip, atempts: 3", r"steps\[6\].atempts"),
    "a missing key": ("name: karaoke", "", "name: Field required"),
    "a key given twice": ("name: karaoke", "name: karaoke\nname: x", "line 4: .*'name' twice"),
    "a duplicate step": (
        "task: clip",
        "task: align",
        r"steps\[6\].task: .*'align' again .*\[1\]",
    ),
    "a duplicate stage": ("[pending,", "[pending, ready,", "stages: found 'ready' twice"),
    "an unknown stage": ("stage: enhanced", "stage: enhancd", r"steps\[6\].stage: .*'enhanced'"),
    "an unknown terminal": ("[ready, failed]\n", "[redy]\n", r"terminal\[0\]: .*'ready'"),
    "work at a terminal": ("stage: enhanced", "stage: ready", r"steps\[6\].stage: .*terminal"),
    "a bare number for a duration": ("30m", "30", "stuck_after: found 30, .*90s, 30m"),
    "a bad duration": ("30m", "soon", "stuck_after: found 'soon', expected a duration"),
    "no duration at all": ("30m", "0m", "stuck_after: .*above zero"),
    "an endless duration": ("30m", "99999999d", "stuck_after: .*hundred years"),
    "text for a number": ("max_attempts: 3", "max_attempts: '3'", "max_attempts: found '3'"),
    "a boolean for a number": ("max_attempts: 3", "max_attempts: yes", "max_attempts: found True"),
    "no attempts": ("max_attempts: 3", "max_attempts: 0", "max_attempts: found 0, .*greater"),
    "a number for a name": ("stage: stage", "stage: 5", "tracks.stage: found 5"),
    "an empty name": ("stage: stage", "stage: ''", "tracks.stage: found '', expected a name"),
    "too many dots": ("table: tracks ", "table: a.b.c ", "tracks.table: .*schema.table"),
    "a name that no encoding has": ("stage: stage", 'stage: "\\ud800"', "tracks.stage: .*a name"),
    "a list for a table": ("table: tracks ", "table: [tracks] ", "tracks.table: found"),
    "text for a mapping": ("tracks:\n", "tracks: x\nt:\n", "tracks: found 'x', Input should be"),
    "a list for a key": ("name: karaoke", "? [x]\n: karaoke", "not valid YAML"),
    "a tag": ("name: karaoke", "name: !!python/name:os.system x", "not valid YAML"),
    "a broken tag": ("name: karaoke", "name: !!int ''", "not valid YAML"),
}


@pytest.mark.parametrize(("old", "new", "says"), WRONG.values(), ids=WRONG)
def test_one_mistake_is_one_line_that_names_file_and_key(
    load: Any, old: str, new: str, says: str
) -> None:
    assert old in KARAOKE
    with pytest.raises(InputError) as caught:
        load(KARAOKE.replace(old, new, 1))
    lines = str(caught.value).splitlines()
    assert all("file.yaml" in line for line in lines)
    assert any(re.search(says, line) for line in lines), lines
    if new not in ("tracks: x\nt:\n", "  titel: title"):
        assert len(lines) == 1, lines


def test_every_mistake_has_its_line(load: Any) -> None:
    broken = KARAOKE.replace("30m", "soon").replace("  title: ", "  titel: ", 1)
    with pytest.raises(InputError) as caught:
        load(broken.replace("name: karaoke", "name: 5"))
    assert {
        line.split("file.yaml: ")[1].split(":")[0] for line in str(caught.value).splitlines()
    } == {
        "name",
        "tracks.titel",
        "stuck_after",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "found NoneType, expected a mapping"),
        ("- a\n- b\n", "found list, expected a mapping"),
        ("just text", "found str, expected a mapping"),
        ("a: [1,\nb: 2\n", r"line \d: not valid YAML"),
        ("a: b: c", "line 1: not valid YAML"),
        ("\x07", "not valid YAML"),
        ("[" * 3000, "not valid YAML"),
        ("&a [*a]", "found list, expected a mapping"),
    ],
)
def test_what_is_no_mapping_is_one_line(load: Any, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: ü".encode("latin-1"))
    for name, says in {
        str(tmp_path / "none.yaml"): "No such file",
        str(tmp_path): "cannot be read",
        str(tmp_path / "latin.yaml"): r"not UTF-8 text \(byte 6\)",
        str(tmp_path / ("x" * 300 + ".yaml")): "File name too long",
        "x" * 300: "unknown pipeline",
        "karaok": r"did you mean 'karaoke'\?",
        "": "unknown pipeline ''",
        "with\0null": "unknown pipeline",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            pipeline.load(name)
        assert len(str(caught.value).splitlines()) == 1


def test_an_alias_bomb_is_an_error_of_modest_size(load: Any) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
    )
    with pytest.raises(InputError) as caught:
        load(laughs + KARAOKE.replace("name: karaoke", "name: *a9"))
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("30m", 1800), ("30min", 1800), ("1h30m", 5400), ("7D", 604_800)),
        *(("2w", 1_209_600), ("1.5h", 5400), (" 1 d 2 h ", 93_600)),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert pipeline.parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "value",
    [*("", "5", "5x", "-5m", "m", "1h 5", "0s", "1e3s", "∞d"), 5, 5.0, None, True, []],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        pipeline.parse_duration(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tracks", (None, "tracks")),
        ("public.tracks", ("public", "tracks")),
        ('"a.b".c', ("a.b", "c")),
        ('a."b.c"', ("a", "b.c")),
        ('"say ""hi""".t', ('say "hi"', "t")),
        ("a; DROP TABLE b", (None, "a; DROP TABLE b")),
    ],
)
def test_split_table(text: str, parts: tuple[str | None, str]) -> None:
    assert pipeline.split_table(text) == parts


def test_unknown_tasks_are_refused_with_the_nearest() -> None:
    found = pipeline.load()
    assert [step.task for step in found.select(["clip", "align"])] == ["align", "clip"]
    with pytest.raises(InputError, match=r"unknown task 'algin'.*did you mean 'align'\?"):
        found.select("algin")


NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=5),
    st.text(alphabet="\"'.:%\\;{}[]&*!|>\n\t#,x1", max_size=9),
    st.sampled_from(["30m", "ready", "pending", "align", "0s", "9" * 30 + "d", '"', "\ud800"]),
)
VALUES = st.recursive(
    NASTY,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
GOOD = yaml.safe_load(KARAOKE)
PLACES: list[tuple[Any, ...]] = [
    *((key,) for key in GOOD),
    *(("tracks", key) for key in GOOD["tracks"]),
    *(("tasks", key) for key in GOOD["tasks"]),
    *(("steps", i) for i in range(3)),
    *(("steps", 1, key) for key in ("stage", "task", "stuck_after", "max_attempts", "unknown")),
    *(("stages", 0), ("terminal", 0), ("dashboards", "task_summary"), ("unknown",)),
    *(("tracks", "\x1b[31m"), ("\n",), ("tasks", "\u202e")),
]


def answer_or_input_error(file: Path) -> None:
    try:
        found = pipeline.load(file)
    except InputError as error:
        lines = str(error).splitlines()
        assert lines
        for line in lines:
            assert line.startswith(str(file))
            assert line.isprintable()
            line.encode()
    else:
        assert re.fullmatch("[0-9a-f]{12}", found.fingerprint)
        for step in found.steps:
            assert step.stage in found.stages
            found.previous(step)


def put(data: Any, place: tuple[Any, ...], value: Any) -> None:
    """Set *value* at *place*, unless an earlier change has left no such place."""
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for part in place[:-1]:
            data = data[part]
        data[place[-1]] = value


any_file = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_file
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4))
def test_any_value_anywhere_is_an_answer_or_an_input_error(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    data = yaml.safe_load(KARAOKE)
    for place, value in changes:
        put(data, place, value)
    file = tmp_path / "file.yaml"
    file.write_text(json.dumps(data, default=str), encoding="utf-8")
    answer_or_input_error(file)
    file.write_text(yaml.safe_dump(data, allow_unicode=False), encoding="utf-8")
    answer_or_input_error(file)


@any_file
@given(
    st.one_of(
        st.binary(max_size=40),
        st.text(alphabet="abe:-[]{}&*!|>?#%@`,'\"\\ \n0~<=.", max_size=40).map(str.encode),
        st.tuples(st.integers(0, len(KARAOKE)), st.text(max_size=3), st.integers(0, 5)).map(
            lambda cut: (KARAOKE[: cut[0]] + cut[1] + KARAOKE[cut[0] + cut[2] :]).encode(
                errors="surrogatepass"
            )
        ),
    )
)
@example(b"!!bool x")
@example(b"!!timestamp x")
@example(b"!!float ''")
@example(b"? {a: b}\n: c")
@example(b"<<: 5")
@example(b"a: 1e99999999999\nb: " + b"9" * 5000)
def test_any_bytes_are_an_answer_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    answer_or_input_error(file)
