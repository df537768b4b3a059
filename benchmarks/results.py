"""What a benchmark found: one table, the same for all of them, and JSON for ``all.py``."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Result:
    """*ratio* is ours to the reference's in the same run; *target* bounds it, from below where
    more is better. Without a target it is told for its own sake."""

    what: str
    ours: str
    reference: str
    ratio: float
    target: float | None
    at_least: bool = False

    @property
    def met(self) -> str:
        if self.target is None:
            return ""
        better = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        return "yes" if better else "NO"

    def cells(self) -> tuple[str, ...]:
        bound = "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"
        return self.what, self.ours, self.reference, f"{self.ratio:.2f}", bound, self.met


HEADER = ("what", "ours", "reference", "ratio", "target", "met")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--json", type=Path, help="also write the results there")
    made.add_argument("--folder", type=Path, help="of the server to use; default one of its own")
    return made


def report(results: list[Result], file: Path | None) -> None:
    rows = [HEADER, *(result.cells() for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    if file is not None:
        file.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
