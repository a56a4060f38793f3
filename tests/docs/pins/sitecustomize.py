"""In the processes of the documentation's tests: pins name what the Hub on loopback holds, not NVIDIA's 489 MB."""

import json
import os

from distill_core.weights.pin import WeightsPin

_held = json.loads(os.environ["DOCS_HUB_FILES"])
_checked = WeightsPin.__post_init__


def _with_what_is_held(self: WeightsPin) -> None:
    if self.repo in _held and self.files and all(size is not None for size, _ in self.files.values()):
        object.__setattr__(self, "files", {name: tuple(known) for name, known in _held[self.repo].items()})
    _checked(self)


WeightsPin.__post_init__ = _with_what_is_held
