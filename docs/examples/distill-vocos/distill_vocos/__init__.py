"""Vocos for distill."""

__version__ = "0.1.0"
