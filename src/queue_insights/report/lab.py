"""JupyterLab on the notebooks, with the database of the environment or the demo's."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from queue_insights import connect, pipeline
from queue_insights.errors import InputError

WORKPLACE = "queue-insights-notebooks"


def start(arguments: Sequence[str] = ()) -> None:
    """Run JupyterLab until it is stopped; *arguments* are its own and go over ours."""
    from jupyterlab.labapp import LabApp

    folder = workplace()
    connect()  # if that starts the demo's server, this process keeps it: kernels come and go

    # The kernel is this interpreter's, whatever the user has installed elsewhere.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    # News are neither asked about nor fetched: only a file of this place turns them off.
    paths = [str(Path(__file__).with_name("jupyter")), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, paths))
    ours = {
        "--ServerApp.root_dir": folder,
        "--LabApp.default_url": "/lab/tree/explore.ipynb",
        "--LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    given = {argument.split("=")[0] for argument in arguments}  # an option may not come twice
    options = [f"{name}={value}" for name, value in ours.items() if name not in given]
    root = ["--allow-root"] if os.geteuid() == 0 else []
    LabApp.launch_instance(argv=[*options, *root, *arguments])


def workplace() -> Path:
    """A copy of the notebooks in the current folder, made once: what is run and saved there is in
    no checkout and no package. Raises InputError if it cannot be made."""
    folder = Path.cwd() / WORKPLACE
    if not folder.exists():
        try:
            shutil.copytree(
                pipeline.shipped("notebooks"), folder, ignore=shutil.ignore_patterns(".*")
            )
        except OSError as error:
            raise InputError(f"cannot copy the notebooks to {folder}: {error.strerror}") from None
        print(f"queue-insights: copied the notebooks to {folder}", file=sys.stderr)
    return folder
