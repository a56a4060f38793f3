"""`distill-vocoder info NAME`: what a vocoder is, its variants, and whether their weights are here."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..card import Variant
from ..registry import registry
from ..states import variant_state
from ..weights import status
from .output import print_json, print_line


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("info", help="describe a vocoder, its variants and mel formats")
    parser.add_argument("name", help="a name from `distill-vocoder list`, or auto")
    parser.add_argument("--variant", help="this variant only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    candidate = registry.candidate(registry.resolve(args.name).name)
    card = registry.activate(candidate)
    variants = [card.variant(args.variant)] if args.variant is not None else card.variants
    if args.json:
        print_json(
            {
                "name": card.name,
                "summary": card.summary,
                "distribution": candidate.distribution or None,
                "version": candidate.version or None,
                "api": card.api,
                "license": card.license,
                "homepage": card.homepage,
                "devices": list(card.devices),
                "default_variant": card.default_variant,
                "variants": [_variant(variant) for variant in variants],
            }
        )
        return 0
    print_line(f"{card.name}: {card.summary}")
    print_line(f"  from      {candidate.origin}")
    print_line(f"  license   {card.license or 'not stated'}")
    print_line(f"  homepage  {card.homepage or 'not stated'}")
    print_line(f"  runs on   {', '.join(card.devices)}")
    for variant in variants:
        default = " (default)" if variant.name == card.default_variant else ""
        size = f", {variant.parameters / 1e6:.1f} M parameters" if variant.parameters else ""
        print_line()
        print_line(f"  {variant.name}{default}: {variant.sample_rate} Hz{size}")
        print_line(f"    mel      {variant.mel}")
        print_line(f"    weights  {_weights(variant)}")
    return 0


def _variant(variant: Variant) -> dict[str, Any]:
    pin = variant.weights
    return {
        "name": variant.name,
        "sample_rate": variant.sample_rate,
        "parameters": variant.parameters or None,
        "mel": {"preset": variant.mel.name, **dataclasses.asdict(variant.mel)},
        "weights": pin and {"confirmed": pin.confirmed, **status(pin).to_dict()},
    }


def _weights(variant: Variant) -> str:
    pin = variant.weights
    if pin is None:
        return variant_state(variant).detail
    here = status(pin)
    state = f"cached in {here.path}" if here.path else "not downloaded yet"
    held = {
        "pinned": "pinned by size and sha256",
        "recorded": f"not pinned; what came first is held to, as {here.record} says",
        "unrecorded": "not pinned; the first download is recorded and held to",
    }
    return f"{pin.repo} at {here.revision[:12]} ({held[here.trust]}), {state}"
