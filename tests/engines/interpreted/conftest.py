"""Skips everything here where Triton's interpreter itself does not work, as older ones do not with newer numpys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import interpreter_builder

# Whether each sum of integers overflows takes a quarter of the time to look, and no signal here is long enough.
if hasattr(interpreter_builder.options, "sanitize_overflow"):
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)


@triton.jit(do_not_specialize=["rows"])
def _probe(x_ptr, rows, N: tl.constexpr):
    for row in range(0, rows, 2):
        tl.store(x_ptr + tl.arange(0, N) + row * N, tl.zeros([N], dtype=tl.float32) + 1.0)


@pytest.fixture(autouse=True, scope="session")
def _interpreter() -> None:
    try:
        _probe[(1,)](torch.zeros(4, 8), 4, N=8)
    except Exception as error:
        versions = f"Triton {triton.__version__} with numpy {np.__version__}"
        pytest.skip(f"the interpreter of {versions} does not work: {error}")
