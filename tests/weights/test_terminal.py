"""`distill-vocoder weights` on vocoders of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_core import Registry, Variant
from distill_core.cli import main
from distill_core.discovery import Discovery
from tests import toy
from tests.hub_server import HubServer


@pytest.fixture
def toys(hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocoder with two variants on the Hub and one that comes otherwise, and a vocoder with none there."""
    variants = []
    for name in ("small", "large"):
        hub.add(f"toys/{name}", {"config.json": b"{}", "weights.pt": name.encode() * 9000})
        variants.append(Variant(name, toy.MEL, 8000, hub.pin(f"toys/{name}")))
    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("toy", variants=(*variants, toy.VARIANT)), toy.card("bare")))
    monkeypatch.setattr("distill_core.cli.weights.registry", registry)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["weights", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_fetch_all_to_a_folder(toys, capsys, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "fetch", "toy", "--all", "--to", tmp_path / "out", "--json")
    assert code == 0
    assert [row["path"] for row in json.loads(out)] == [str(tmp_path / "out" / name) for name in ("small", "large")]
    assert (tmp_path / "out" / "large" / "weights.pt").read_bytes() == b"large" * 9000


def test_what_is_not_on_the_hub_cannot_be_fetched(toys, capsys) -> None:
    toy = ("toy", "--variant", "plain")
    for arguments in (["fetch", "bare"], ["fetch", *toy], ["convert", "bare"], ["verify", "bare"], ["verify", *toy]):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        assert err.startswith("error: The weights of ")
        assert "not on the Hub" in err


def test_status_of_everything(toys, capsys) -> None:
    assert run(capsys, "fetch", "toy", "--variant", "small", "--quiet")[0] == 0
    code, out, err = run(capsys, "status")
    assert (code, err) == (0, "")
    cells = {tuple(line.split()[:3]) for line in out.splitlines()[1:]}
    assert cells == {
        ("bare", "plain", "-"),
        ("bare", "other", "-"),
        ("toy", "small", "yes"),
        ("toy", "large", "no"),
        ("toy", "plain", "-"),
    }


def test_a_variant_without_a_vocoder_is_that_of_each_which_has_it(toys, capsys) -> None:
    _, out, _ = run(capsys, "status", "--variant", "plain")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["bare", "plain"], ["toy", "plain"]]
    assert run(capsys, "verify", "--variant", "large")[0] == 0
    code, _, err = run(capsys, "status", "--variant", "huge")
    assert (code, err) == (1, "error: No vocoder that is installed has a variant 'huge'.\n")


def test_verify_says_what_is_damaged(toys, capsys) -> None:
    assert run(capsys, "verify") == (0, "Nothing from the Hub is cached.\n", "")
    folder = Path(run(capsys, "fetch", "toy", "--quiet")[1].strip())
    assert run(capsys, "verify", "toy")[0] == 0
    (folder / "weights.pt").resolve().write_bytes(b"smell" * 9000)
    code, out, _ = run(capsys, "verify", "toy")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["ok", "FAILED"]


@pytest.mark.parametrize("arguments", [[], ["fetch", "toy", "--nonsense"], ["steal"]])
def test_wrong_usage(toys, capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(capsys, *arguments)
    assert caught.value.code == 2
