"""faults.py FILE: the table of the faults that tests reported (tests/src/fault.rs), and whether any is missing."""

import json
import pathlib
import sys

# 12 is the delivery receipts, which do not exist yet.
GROUPS = [group for group in range(1, 31) if group != 12]
COLUMNS = [
    ("fault", "group"),
    ("case", "case"),
    ("server", "server"),
    ("injected", "injected"),
    ("messages", "messages"),
    ("lost", "lost"),
    ("twice", "twice"),
    ("unclear, expected", "unclear_expected"),
    ("found", "unclear_found"),
    ("recovered", "recovered"),
    ("", "result"),
]


def row(fault):
    recovered = fault.get("recovered_ms")
    expected = fault.get("unclear_expected", "-")
    # Whether a late answer came was up to the machine.
    if possible := fault.get("unclear_possible"):
        expected = f"{expected} to {expected + possible}"
    shown = fault | {
        "unclear_expected": expected,
        "recovered": "" if recovered is None else f"{recovered / 1000:.1f} s",
        "result": "FAILED" if fault.get("failed") else "ok",
    }
    return [str(shown.get(key, "-")) for _, key in COLUMNS]


def main(path):
    file = pathlib.Path(path)
    faults = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    faults.sort(key=lambda fault: (int(fault["group"]), fault["case"], fault["server"]))
    rows = [[title for title, _ in COLUMNS]] + [row(fault) for fault in faults]
    widths = [max(len(cells[place]) for cells in rows) for place in range(len(COLUMNS))]
    for cells in rows:
        print("  ".join(
            cell.ljust(width) if place in (1, 10) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths))
        ).rstrip())
    missing = [group for group in GROUPS if str(group) not in {fault["group"] for fault in faults}]
    if missing:
        print(f"no test reported: {', '.join(map(str, missing))}", file=sys.stderr)
    total = sum(fault["injected"] for fault in faults)
    failed = sum(1 for fault in faults if fault.get("failed"))
    print(f"{len(faults)} cases, {total} faults injected, {failed} failed")
    return 1 if missing or failed or not faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
