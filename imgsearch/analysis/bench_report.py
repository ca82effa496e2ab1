"""What `bench` has measured, and what an ingest would come to.

Where the model runs on the CPU, the stages of an ingest share its cores, so that their times add
up; a GPU works while the CPU prepares the next pictures.
"""

import contextlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

StageName = Literal["scan", "read", "decode", "encode", "write"]
# What makes each stage faster.
_REMEDIES: Mapping[StageName, str] = {
    "scan": "a faster disk would help",
    "read": "a faster disk would help",
    "decode": "more cores would help, or smaller pictures",
    "encode": "a faster device or a lighter model would help",
    "write": "a faster store would help",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """One stage alone: how many `pictures` it took in `seconds`; `how` tells with what."""

    stage: StageName
    how: str
    pictures: int
    seconds: float

    @property
    def cost(self) -> float:
        """Seconds a picture."""
        return self.seconds / self.pictures

    @property
    def per_second(self) -> float:
        return self.pictures / self.seconds


@dataclass(frozen=True, slots=True)
class Choice:
    """What an ingest would come to with one model on one device; `costs` are seconds a picture."""

    model: str
    compute_type: str
    device: str
    runtime: str
    costs: Mapping[StageName, float]

    @property
    def name(self) -> str:
        return f"{self.model} on {self.device} in {self.compute_type}"

    @property
    def limit(self) -> StageName:
        """The stage that takes the longest."""
        return max(self.costs, key=lambda stage: self.costs[stage])

    @property
    def cost(self) -> float:
        """Seconds a picture, of all stages together."""
        everything = sum(self.costs.values())
        if self.device == "cpu":
            return everything
        return max(self.costs["encode"], everything - self.costs["encode"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "compute_type": self.compute_type,
            "device": self.device,
            "runtime": self.runtime,
            "images_per_second": round(1 / self.cost, 2),
            "limit": self.limit,
            "milliseconds": {stage: round(1000 * cost, 4) for stage, cost in self.costs.items()},
        }


@dataclass
class BenchReport:
    """What was measured, and what it comes to.

    `found` counts the pictures that the scan met within its time, all of them if `complete`;
    `sample` those that were read. `not_measured` tells what was left out, with the reason.
    """

    cpu: str
    cores: int
    found: int = 0
    complete: bool = False
    sample: int = 0
    rates: list[Rate] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    """Pictures that cannot be read or decoded: reasons by path."""
    not_measured: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def fastest(self) -> Choice | None:
        return min(self.choices, key=lambda choice: choice.cost, default=None)

    def advice(self) -> list[str]:
        """What to choose, and what to buy, in plain sentences."""
        fastest = self.fastest
        if fastest is None:
            return []
        lines = [_about_the_limit(choice, fastest) for choice in self.choices]
        if len({choice.model for choice in self.choices}) > 1:
            lines.append(
                f"{fastest.name} is the fastest; to learn which model finds better, evaluate a "
                "collection of each."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The object that `bench --json` prints."""
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
                    "images": rate.pictures,
                    "seconds": round(rate.seconds, 4),
                    "images_per_second": round(rate.per_second, 2),
                }
                for rate in self.rates
            ],
            "choices": [choice.to_dict() for choice in self.choices],
            "not_measured": self.not_measured,
            "unusable": self.unusable,
            "advice": self.advice(),
            "interrupted": self.interrupted,
        }


def _about_the_limit(choice: Choice, fastest: Choice) -> str:
    stage = choice.limit
    share = choice.costs[stage] / sum(choice.costs.values())
    what = "the model" if stage == "encode" else stage
    line = f"{choice.name}: {what} is the limit, {share:.0%} of the work: {_REMEDIES[stage]}"
    if choice is not fastest:
        line += f"; {fastest.name} would be {choice.cost / fastest.cost:.1f} times as fast"
    return line + "."


def cpu_name() -> str:
    """What the machine calls its processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
