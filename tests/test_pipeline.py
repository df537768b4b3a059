"""The pipeline file: an answer, or errors that say where, what was found and what was expected."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_the_fingerprint_changes_with_meaning_and_not_with_layout(load: Any) -> None:
    content = yaml.safe_load(KARAOKE)
    content["steps"].reverse()  # which are in the order of their stages
    same = load(yaml.safe_dump(content))
    assert same == pipeline.load()
    assert same.fingerprint == pipeline.load().fingerprint
    assert [step.task for step in same.select(["clip", "align"])] == ["align", "clip"]
    for old, new in (("30m", "31m"), ("max_attempts: 3 ", "max_attempts: 4 "), ("[ready, ", "[")):
        assert load(KARAOKE.replace(old, new, 1)).fingerprint != same.fingerprint


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
WRONG = {
    "an unknown key": ("terminal:", "terminals: []\nterminal:", "terminals: .*mean 'terminal'"),
    "an unknown key of a table": ("  title: title", "  titel: title", "tracks.titel: .* 'title'"),
    "a missing key": ("name: karaoke", "", "name: Field required"),
    "a key given twice": ("name: karaoke", "name: karaoke\nname: x", "line 4: .*'name' twice"),
    "a duplicate step": ("task: clip", "task: align", r"\[6\].task: .*'align' again .*\[1\]"),
    "an unknown stage": ("stage: enhanced", "stage: enhancd", r"steps\[6\].stage: .*'enhanced'"),
    "a bare number for a duration": ("30m", "30", "stuck_after: found 30, .*90s, 30m"),
    "an endless duration": ("30m", "99999999d", "stuck_after: .*hundred years"),
    "too many dots": ("table: tracks ", "table: a.b.c ", "tracks.table: .*schema.table"),
    "a name that no encoding has": ("stage: stage", 'stage: "\\ud800"', "tracks.stage: .*a name"),
    "an alias bomb": ("name: karaoke", f"{BOMB}name: *a9", "file.yaml: a0: unknown key"),
    "a tag": ("name: karaoke", "name: !!python/name:os.system x", "not valid YAML"),
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
    assert [line for line in lines if re.search(says, line)], lines
    assert len(lines) == (11 if BOMB in new else 1)  # keys that are wrong as well


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: ü".encode("latin-1"))
    for name, says in {
        str(tmp_path / "none.yaml"): "No such file",
        str(tmp_path / "latin.yaml"): r"not UTF-8 text \(byte 6\)",
        "karaok": r"did you mean 'karaoke'\?",
        "with\0null": "unknown pipeline",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            pipeline.load(name)
        assert len(str(caught.value).splitlines()) == 1
