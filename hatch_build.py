"""What the wheel carries beside the code: params/, and notebooks/ without outputs or checkpoints,
whatever JupyterLab has saved in this checkout."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shipped(BuildHookInterface[Any]):
    """Adds the files, for each notebook a copy that is stripped of what it printed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.copies = tempfile.TemporaryDirectory()
        if version == "editable":  # which finds both in the checkout
            return
        root, files = Path(self.root), build_data["force_include"]
        for file in root.glob("params/**/[!.]*.yaml"):
            if ".ipynb_checkpoints" not in file.parts:
                files[str(file)] = f"queue_insights/{file.relative_to(root)}"
        for file in root.glob("notebooks/*.ipynb"):
            notebook = json.loads(file.read_text("utf-8"))
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    cell |= {"outputs": [], "execution_count": None}
            copy = Path(self.copies.name, file.name)
            copy.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
            files[str(copy)] = f"queue_insights/notebooks/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.copies.cleanup()
