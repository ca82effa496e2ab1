"""Measured rates, and the estimates of a whole ingest that follow from them.

If the model runs on the CPU, all stages share its cores, so their times add up. A GPU encodes while
the CPU prepares the next images.
"""

import contextlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

StageName = Literal["scan", "read", "decode", "encode", "write"]
_ADVICE: Mapping[StageName, str] = {
    "scan": "a faster disk would help",
    "read": "a faster disk would help",
    "decode": "more cores would help, or smaller images",
    "encode": "a faster device or a lighter model would help",
    "write": "a faster store would help",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """The speed of one stage alone: `images` in `seconds`. `how` names threads, model or store."""

    stage: StageName
    how: str
    images: int
    seconds: float

    @property
    def cost(self) -> float:
        """Seconds per image."""
        return self.seconds / self.images

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds


@dataclass(frozen=True, slots=True)
class Estimate:
    """An ingest with one model on one device; `costs` are seconds per image, by stage."""

    model: str
    compute_type: str
    device: str
    runtime: str
    costs: Mapping[StageName, float]

    @property
    def name(self) -> str:
        """The model, device and number format."""
        return f"{self.model} on {self.device} in {self.compute_type}"

    @property
    def bottleneck(self) -> StageName:
        """The slowest stage."""
        return max(self.costs, key=lambda stage: self.costs[stage])

    @property
    def cost(self) -> float:
        """Seconds per image for all stages."""
        total = sum(self.costs.values())
        if self.device == "cpu":
            return total
        return max(self.costs["encode"], total - self.costs["encode"])

    def to_dict(self) -> dict[str, Any]:
        """Return an element of `choices` in the JSON of the report."""
        return {
            "model": self.model,
            "compute_type": self.compute_type,
            "device": self.device,
            "runtime": self.runtime,
            "images_per_second": round(1 / self.cost, 2),
            "limit": self.bottleneck,
            "milliseconds": {stage: round(1000 * cost, 4) for stage, cost in self.costs.items()},
        }


@dataclass
class BenchReport:
    """The result of a benchmark.

    `found` is the number of images that the scan found in its time; they are all if `complete`.
    `sample` is the number of images that were read. `not_measured` holds reasons by model.
    """

    cpu: str
    cores: int
    found: int = 0
    complete: bool = False
    sample: int = 0
    rates: list[Rate] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    """Reasons by path of images that cannot be read or decoded."""
    not_measured: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def fastest(self) -> Estimate | None:
        return min(self.estimates, key=lambda estimate: estimate.cost, default=None)

    def advice(self) -> list[str]:
        """Return sentences on the bottlenecks, what would help, and which model is the fastest."""
        fastest = self.fastest
        if fastest is None:
            return []
        lines = [_bottleneck(estimate, fastest) for estimate in self.estimates]
        if len({estimate.model for estimate in self.estimates}) > 1:
            lines.append(
                f"{fastest.name} is the fastest; to compare the quality of models, evaluate a "
                "collection of each."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch bench --json` prints."""
        return {
            "cpu": self.cpu,
            "cores": self.cores,
            "found": self.found,
            "complete": self.complete,
            "sample": self.sample,
            "stages": [
                {
                    "stage": rate.stage,
                    "how": rate.how,
                    "images": rate.images,
                    "seconds": round(rate.seconds, 4),
                    "images_per_second": round(rate.per_second, 2),
                }
                for rate in self.rates
            ],
            "choices": [estimate.to_dict() for estimate in self.estimates],
            "not_measured": self.not_measured,
            "unusable": self.unusable,
            "advice": self.advice(),
            "interrupted": self.interrupted,
        }


def _bottleneck(estimate: Estimate, fastest: Estimate) -> str:
    stage = estimate.bottleneck
    share = estimate.costs[stage] / sum(estimate.costs.values())
    what = "the model" if stage == "encode" else stage
    line = f"{estimate.name}: {what} is the limit, {share:.0%} of the work: {_ADVICE[stage]}"
    if estimate is not fastest:
        line += f"; {fastest.name} would be {estimate.cost / fastest.cost:.1f} times as fast"
    return line + "."


def cpu_name() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
