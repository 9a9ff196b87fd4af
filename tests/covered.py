"""How much of src/ the tests ran, by lines and by branches; fails below 95 % of lines.

Run by `make coverage`, after the tests were measured. coverage's own `fail_under` knows lines and
branches in one figure only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from coverage import Coverage

LEAST = 95.0


def figures() -> dict[str, Any]:
    """Lines and branches, all and run, of each module and of all together."""
    coverage = Coverage()
    coverage.load()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "coverage.json"
        coverage.json_report(outfile=str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
    modules = {name: counts(one["summary"]) for name, one in sorted(report["files"].items())}
    return {"total": counts(report["totals"]), "modules": modules}


def counts(summary: dict[str, Any]) -> dict[str, Any]:
    """The counts of one module, or of all."""
    return {
        "lines": summary["num_statements"],
        "lines_run": summary["covered_lines"],
        "lines_percent": round(summary["percent_statements_covered"], 2),
        "branches": summary["num_branches"],
        "branches_run": summary["covered_branches"],
        "branches_percent": round(summary["percent_branches_covered"], 2),
    }


def main() -> None:
    """Print the totals, keep the figures if asked to, and judge the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the figures go, as docs/coverage.json")
    asked = parser.parse_args()
    found = figures()
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    total = found["total"]
    print(
        f"src/: {total['lines_percent']} % of {total['lines']} lines, "
        f"{total['branches_percent']} % of {total['branches']} branches"
    )
    if total["lines_percent"] < LEAST:
        sys.exit(f"coverage: fewer than {LEAST:g} % of the lines of src/ were run")


if __name__ == "__main__":
    main()
