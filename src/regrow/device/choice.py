"""What a deployer decides by: files with their speed on a machine, and those that fit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrow.device.frontier import pareto

Spread = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A file with what a machine measured of its layout, if it did.

    accuracy: estimate, low and high. speed: figures of `measure.UNITS` by name, each with median,
    low, high and noisy.
    """

    name: str
    method: str
    cell: str | None
    form: str
    megabytes: float
    accuracy: Mapping[str, float]
    speed: Mapping[str, Spread]
    on_bytes: bool
    on_decode: bool


def read_rows(frontier: Mapping[str, Any], measured: Mapping[str, Any], threads: int) -> list[Row]:
    """Every file, best first; `measured` is empty where no machine has measured."""
    files, layouts = frontier["files"], measured.get("layouts", {})
    speeds = {
        name: layouts.get(file["layout"], {}).get("threads", {}).get(str(threads), {})
        for name, file in files.items()
    }
    points = {
        name: (-speed["decode_per_s"]["median"], files[name]["accuracy"]["estimate"])
        for name, speed in speeds.items()
        if speed
    }
    quickest = pareto(points)
    rows = [
        Row(
            *(name, file["method"], file["cell"], file["format"], file["bytes"] / 1e6),
            *(file["accuracy"], speeds[name], file["pareto"], name in quickest),
        )
        for name, file in files.items()
    ]
    return sorted(rows, key=lambda row: (-row.accuracy["estimate"], row.megabytes))


def fitting(rows: Sequence[Row], max_mb: float, min_decode: float, max_memory: float) -> list[Row]:
    """Those on a frontier, over bytes or decoding, that fit; best first.

    A limit on what was not measured is not met.
    """

    def median(row: Row, name: str, otherwise: float) -> float:
        return float(row.speed[name]["median"]) if name in row.speed else otherwise

    return [
        row
        for row in rows
        if (row.on_bytes or row.on_decode)
        and row.megabytes <= max_mb
        and median(row, "decode_per_s", 0) >= min_decode
        and median(row, "peak_mb", math.inf) <= max_memory
    ]


def doubts(row: Row, best: Row, min_decode: float) -> list[str]:
    """What is uncertain of a row that fits, in words."""
    found = []
    if row is not best and row.accuracy["high"] >= best.accuracy["low"]:
        found.append("its accuracy's interval meets that of the best")
    if (decode := row.speed.get("decode_per_s")) is None:
        return [*found, "not measured on this machine"]
    if decode["noisy"]:
        found.append(f"decoding was noisy ({decode['low']:g} to {decode['high']:g})")
    if decode["low"] < min_decode:
        found.append(f"some repetitions decoded below {min_decode:g} a second")
    return found
