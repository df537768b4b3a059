"""What the tests with random input share: how many cases, hostile text, what an error must be."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from queue_insights.errors import InputError

MORE = 5 if settings.get_current_profile_name() == "proof" else 1


def cases(number: int) -> settings:
    """So many random cases, in `make proof` five times as many."""
    return settings(max_examples=number * MORE, suppress_health_check=list(HealthCheck))


HOSTILE = st.one_of(
    st.text(alphabet="\"';-/*\\%:$(){}[]., \t\n\rEUx0ä🎵\u202e\u2028", min_size=1, max_size=12),
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        [
            *("'; DROP TABLE tracks; --", '"; DROP TABLE tracks; --', "\\'; SELECT 1; --", "%(x)s"),
            *(":param", "$1", "$$", "/*", "*/ --", "E'\\''", "U&'\\0027'", "''", '""', "%%", "%s"),
            *("select", "NULL", "user", "a.b", "0", "\x00", "\ud800", "x" * 60, "é" * 31),
        ]
    ),
)
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), HOSTILE),
    *(st.dates(), st.binary(max_size=3), st.sampled_from(["false", "null", "[a, 'b']", "30m"])),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=2)
)


def clear(error: InputError, start: str = "", lines: int = 1) -> None:
    """Whether an error is fit for a terminal."""
    found = str(error).split("\n")
    assert 0 < len(found) <= lines
    assert all(line.startswith(start) and line.isprintable() and line.encode() for line in found)
    assert error.exit_code == 2
