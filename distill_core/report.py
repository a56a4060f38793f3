"""What a loaded vocoder says about how it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EngineReport:
    """Which engine runs a vocoder, and why not a faster one.

    Args:
        engine: the engine's name, such as "eager".
        device: where it runs.
        precision: what it computes in.
        notes: reasons and advice, one sentence each.
    """

    engine: str
    device: str
    precision: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}

    def __str__(self) -> str:
        return "\n".join([f"engine {self.engine} on {self.device} in {self.precision}", *self.notes])
