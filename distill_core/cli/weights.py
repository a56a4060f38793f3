"""`distill-vocoder weights status|fetch|verify|convert`: what is here, getting it, and whether it is whole."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

from ..card import Variant, VocoderCard
from ..errors import UnknownVariantError, WeightsNotFoundError
from ..registry import registry
from ..states import variant_state
from ..weights import ensure, load_checkpoint, status, verify
from ..weights.export import export
from .arguments import file, path
from .output import print_json, print_line, print_table


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("weights", help="show, download and check the vocoders' weights")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("status", help="what is cached, how large, at which revision, held to by what")
    command.add_argument("name", nargs="?", help="one vocoder only (default: all that are installed)")
    command.add_argument("--variant", help="one variant only")
    command.set_defaults(run=run_status)

    command = commands.add_parser("fetch", help="download weights now, or bring them to a folder")
    command.add_argument("name", nargs="?", default="auto", help="a vocoder (default: auto)")
    command.add_argument("--variant", help="which variant (default: the vocoder's default)")
    command.add_argument("--all", action="store_true", help="all of its variants")
    command.add_argument("--to", metavar="DIR", type=file, help="copy the files there, to be used as weights=DIR")
    command.add_argument("--force", action="store_true", help="overwrite other files in DIR")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=run_fetch)

    command = commands.add_parser("verify", help="hash what is cached, whatever was verified before")
    command.add_argument("name", nargs="?", help="one vocoder only (default: all that are installed)")
    command.add_argument("--variant", help="one variant only")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=run_verify)

    command = commands.add_parser("convert", help="write a checkpoint in the form that loads fastest")
    command.add_argument("name", nargs="?", default="auto", help="a vocoder (default: auto)")
    command.add_argument("--variant", help="which variant (default: the vocoder's default)")
    command.add_argument("--weights", metavar="PATH", type=path, help="a checkpoint or folder of your own instead")
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=file,
        help="a .safetensors to be used as weights=FILE (default: "
        "where it is found by itself and loaded in place of the checkpoint)",
    )
    command.add_argument("--force", action="store_true", help="overwrite FILE")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=run_convert)

    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")


def run_status(args: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    elsewhere: list[str] = []
    for card, variant in _chosen(args):
        here = status(variant.weights).to_dict() if variant.weights else None
        rows.append({"vocoder": card.name, "variant": variant.name, "weights": here})
        elsewhere.append("" if here else variant_state(variant).detail)
    if args.json:
        print_json(rows)
        return 0
    head = ("VOCODER", "VARIANT", "CACHED", "SIZE", "REVISION", "HELD TO", "WHERE")
    print_table(head, [_status_row(**row, elsewhere=where) for row, where in zip(rows, elsewhere, strict=True)])
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    card = registry.card(registry.resolve(args.name).name)
    variants = card.variants if args.all else [card.variant(args.variant)]
    pinned = [variant for variant in variants if variant.weights]
    if not pinned:
        raise _not_on_the_hub(card, variants[0], "There is nothing to fetch.")
    rows = []
    for variant in pinned:
        assert variant.weights is not None
        folder = ensure(variant.weights, progress=not args.quiet)
        if args.to is not None:
            target = args.to / variant.name if args.all else args.to
            folder = export(folder, variant.weights, target, overwrite=args.force)
        rows.append({"vocoder": card.name, "variant": variant.name, "path": str(folder)})
    if args.json:
        print_json(rows)
    else:
        for row in rows:
            print_line(row["path"])
    return 0


def run_verify(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    rows: list[dict[str, Any]] = []
    chosen = list(_chosen(args))
    if (args.name is not None or args.variant is not None) and not any(variant.weights for _, variant in chosen):
        raise _not_on_the_hub(*chosen[0], "There is nothing to verify.")
    with tqdm(unit="B", unit_scale=True, desc="hashing", delay=0.5, leave=False, disable=args.quiet) as bar:
        for card, variant in chosen:
            checks = verify(variant.weights, bar.update) if variant.weights else ()
            about = {"vocoder": card.name, "variant": variant.name}
            rows += [{**about, **dataclasses.asdict(check), "path": str(check.path)} for check in checks]
    if args.json:
        print_json(rows)
    elif rows:
        for row in rows:
            print_line(f"{'FAILED' if row['problem'] else 'ok':6}  {row['path']}  {row['problem'] or row['sha256']}")
    else:
        print_line("Nothing from the Hub is cached.")
    return 1 if any(row["problem"] for row in rows) else 0


def run_convert(args: argparse.Namespace) -> int:
    from ..weights.folded import convert

    card = registry.card(registry.resolve(args.name).name)
    variant = card.variant(args.variant)
    if args.weights is None and variant.weights is None:
        raise _not_on_the_hub(card, variant, "Say which file, with --weights.")
    source = load_checkpoint(args.weights, variant.weights, progress=not args.quiet, converted=False)
    assert source.path is not None
    target = convert(source.path, source.state_dict, source.config, args.output, overwrite=args.force)
    size = target.stat().st_size
    if args.json:
        print_json({"vocoder": card.name, "variant": variant.name, "path": str(target), "size": size})
    else:
        print_line(str(target))
    return 0


def _chosen(args: argparse.Namespace) -> Iterator[tuple[VocoderCard, Variant]]:
    """What was named; a variant without a vocoder is that of every one which has it."""
    cards = [registry.card(registry.resolve(args.name).name)] if args.name is not None else registry.cards()
    if args.name is None and args.variant is not None:
        cards = [card for card in cards if args.variant in (variant.name for variant in card.variants)]
        if not cards:
            raise UnknownVariantError(f"No vocoder that is installed has a variant {args.variant!r}.")
    for card in cards:
        for variant in [card.variant(args.variant)] if args.variant is not None else card.variants:
            yield card, variant


def _not_on_the_hub(card: VocoderCard, variant: Variant, so: str) -> WeightsNotFoundError:
    where = variant_state(variant).detail
    return WeightsNotFoundError(f"The weights of {card.name} {variant.name} are {where}. {so}")


def _status_row(vocoder: str, variant: str, weights: dict[str, Any] | None, elsewhere: str) -> tuple[str, ...]:
    if weights is None:
        return vocoder, variant, "-", "-", "-", "-", elsewhere
    size = f"{weights['size'] / 1e6:.1f} MB" if weights["size"] is not None else "?"
    cached = "yes" if weights["cached"] else f"{weights['arrived'] / 1e6:.1f} MB" if weights["arrived"] else "no"
    trust = {"pinned": "pin", "recorded": "record", "unrecorded": "nothing yet"}[weights["trust"]]
    return vocoder, variant, cached, size, weights["revision"][:12], trust, weights["path"] or weights["repo"]
