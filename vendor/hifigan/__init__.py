"""HiFi-GAN (Kong et al., NeurIPS 2020, arXiv:2010.05646): generator and published configurations.

Written for this project against the published architecture and checkpoint layout.
"""

from ..common.checkpoint import StateDictError, load_file
from ..common.config import AttrDict, ConfigError
from .configs import CONFIGS
from .generator import Generator, HiFiGAN, HiFiGANConfig, context, expected_shapes, halo

__all__ = [
    "CONFIGS",
    "AttrDict",
    "ConfigError",
    "Generator",
    "HiFiGAN",
    "HiFiGANConfig",
    "StateDictError",
    "context",
    "expected_shapes",
    "halo",
    "load_file",
]
