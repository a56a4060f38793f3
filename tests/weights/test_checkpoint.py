"""Files that are no checkpoint, or more than one: refused in one clear line, and nothing of them run."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import struct
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from distill_core.errors import CheckpointError, OptionError, UnsafeCheckpointError, WeightsNotFoundError
from distill_core.weights import WeightsPin, check_state_dict, load_checkpoint, read_checkpoint, read_config
from distill_core.weights.source import stamp

STATE = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3)}


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"generator": s}], ids=["bare", "generator"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_torch_files(tmp_path: Path, wrap, new: bool) -> None:
    torch.save(wrap(STATE), tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    read = read_checkpoint(tmp_path / "x.pt")
    assert same(read.state_dict)
    assert read.mapped is new


def test_what_torch_wrote_of_a_model_in_parallel(tmp_path: Path) -> None:
    model = torch.nn.DataParallel(torch.nn.Linear(2, 3))
    torch.save({"generator": model.state_dict()}, tmp_path / "g.pt")
    assert read_checkpoint(tmp_path / "g.pt").state_dict.keys() == {"weight", "bias"}


def test_safetensors_with_and_without_configuration(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "x.safetensors")
    assert same(read_checkpoint(tmp_path / "x.safetensors").state_dict)
    save_file(STATE, tmp_path / "y.safetensors", {"config": '{"a": 1}'})
    assert read_checkpoint(tmp_path / "y.safetensors").config == {"a": 1}
    save_file(STATE, tmp_path / "z.safetensors", {"config": "{"})
    with pytest.raises(CheckpointError, match="not JSON"):
        read_checkpoint(tmp_path / "z.safetensors")


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "bare pickle", "in the generator"])
def test_code_is_not_run(tmp_path: Path, kind: str) -> None:
    path, ran = tmp_path / "x.pt", tmp_path / "ran"
    bomb = {"generator": {"conv.weight": Bomb(ran)}} if kind == "in the generator" else Bomb(ran)
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=kind != "before torch 1.6")
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.mkdir|nt\.mkdir") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert ran.exists()  # it is a bomb indeed


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "x.pt")


def zip_bomb(path: Path) -> None:
    """A torch archive whose pickle unpacks to a thousand times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        with archive.open("x/data.pkl", "w") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        archive.writestr("x/version", "3\n")


def overlapping_bomb(path: Path) -> None:
    """Stored, not compressed, but many entries that share the same bytes."""
    torch.save({"a": torch.zeros(300_000)}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
        count = len(archive.infolist())
    end = data.rindex(b"PK\x06\x06") if b"PK\x06\x06" in data else data.rindex(b"PK\x05\x06")
    entries = bytes(data[directory:end])
    copies = 50
    size = len(entries) * copies
    total = count * copies
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, total, total, size, directory, 0)
    path.write_bytes(bytes(data[:directory]) + entries * copies + tail)


def two_faced_bomb(path: Path) -> None:
    """Compressed by the table of contents that torch reads, stored by the one that Python's zipfile reads."""
    zip_bomb(path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    with zipfile.ZipFile(path) as archive:
        table = bytearray(data[archive.start_dir : end])
    at = 0
    while at < len(table):
        table[at + 10 : at + 12] = bytes(2)  # stored
        table[at + 24 : at + 28] = table[at + 20 : at + 24]  # as many bytes as there are
        at += 46 + sum(struct.unpack_from("<HHH", table, at + 28))
    path.write_bytes(data[:end] + table + data[end:])


@pytest.mark.parametrize("bomb", [zip_bomb, overlapping_bomb, two_faced_bomb])
def test_zip_bombs_are_not_unpacked(tmp_path: Path, bomb, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb(tmp_path / "x.pt")
    for owner, name in ((torch, "load"), (zipfile.ZipFile, "open"), (zipfile.ZipFile, "read")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(CheckpointError, match=r"was not unpacked|more than its own size|where torch\.save puts"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_tensor_that_claims_more_than_there_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="claims 1099511627776 numbers"):
        read_checkpoint(tmp_path / "x.pt")


def old_file_without_numbers(path: Path, count: int) -> None:
    """As torch wrote before 1.6, but of the one storage that it names no numbers follow."""
    torch.save({"a": torch.ones(count)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    keys = data.index(b"\x80\x02]q\x00X")  # the list of those whose numbers follow
    path.write_bytes(data[:keys] + pickle.dumps([], 2))


@pytest.mark.parametrize("room", [0, 4000])
def test_numbers_that_an_old_file_does_not_hold_are_not_what_was_in_memory(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_file_without_numbers(tmp_path / "x.pt", 1000)
    with (tmp_path / "x.pt").open("ab") as file:
        file.write(bytes(room))
    if room == 0:
        with pytest.raises(CheckpointError, match="claims more numbers than it has room for"):
            read_checkpoint(tmp_path / "x.pt")
        return
    load = torch.load

    def into_used_memory(path: Path, map_location, **rest):
        return load(path, map_location=lambda storage, at: map_location(storage.fill_(7), at), **rest)

    monkeypatch.setattr(torch, "load", into_used_memory)
    assert not read_checkpoint(tmp_path / "x.pt").state_dict["a"].any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "g.pt")
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "x.pt")
    _reading_ends(tmp_path / "x.pt", read_checkpoint)
    _reading_ends(tmp_path / "config.json", read_config)


def _reading_ends(pipe: Path, read) -> None:
    """It is refused; one that would wait is given an end, so that the test fails and does not hang."""

    def refused() -> str:
        try:
            read(pipe)
        except CheckpointError as error:
            return str(error)
        return "it was read"

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(refused)
        with contextlib.suppress(TimeoutError):
            said.result(timeout=10)
        with contextlib.suppress(OSError):  # nobody reads from it
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        assert "pipe or a device" in said.result()


def _torch_bytes(content: object, tmp_path: Path) -> bytes:
    torch.save(content, tmp_path / "made")
    return (tmp_path / "made").read_bytes()


DAMAGED = {
    "empty": (lambda whole: b"", "empty"),
    "cut at the end": (lambda whole: whole[:-100], "cut off after"),
    "cut in the middle": (lambda whole: whole[: len(whole) // 2], "cut off after"),
    "cut near the start": (lambda whole: whole[:40], "cut off after"),
    "a web page": (lambda whole: b"\n <!DOCTYPE html><html>Sign in</html>", "web page"),
    "an LFS pointer": (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "text": (lambda whole: b"hello, this is my checkpoint", "no checkpoint"),
    "noise": (lambda whole: bytes(range(200, 256)) * 9, "no checkpoint"),
    "the start of a pickle": (lambda whole: b"\x80\x02}q\x00", "damaged"),
    "a pickle of a number": (lambda whole: pickle.dumps(3), "damaged|no checkpoint"),
    "an archive of something else": (None, "damaged|no checkpoint"),
    "safetensors cut": (lambda whole: struct.pack("<Q", 50) + b'{"a":{"dtype":"F32","shape":[3],"data', "damaged"),
    "safetensors with a huge header": (lambda whole: struct.pack("<Q", 1 << 31) + b"{" * 50, "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    make, said = DAMAGED[damage]
    path = tmp_path / "x.pt"
    if make is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    else:
        path.write_bytes(make(_torch_bytes({"generator": STATE}, tmp_path)))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds nothing"),
        ({"generator": {}}, "holds nothing"),
        ({"steps": 7, "conv.weight": torch.ones(2)}, "'steps' is a int"),
        ({1: torch.ones(2)}, "named by strings, and 1 is none"),
        ({"a": torch.ones(2, 2).to_sparse()}, "no plain tensor"),
        ({"a": {"nested": torch.ones(2)}}, "'a' is a dict"),
    ],
)
def test_other_content(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / "x.pt")


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch says that it is to go
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "x.pt")


def test_five_names_of_what_does_not_fit() -> None:
    expected = {f"conv.{index}.weight": (4, 4) for index in range(8)}
    fitting = {name: torch.zeros(4, 4) for name in expected}
    check_state_dict(fitting, expected, "BigVGAN")
    check_state_dict({**fitting}, {**expected, "filter": (12,)}, "BigVGAN", optional=["filter"])

    missing = {"conv.0.weight": torch.zeros(4, 4)}
    with pytest.raises(CheckpointError, match="not of BigVGAN") as caught:
        check_state_dict(missing, expected, "BigVGAN")
    assert all(f"conv.{index}.weight is missing" in str(caught.value) for index in range(1, 6))
    assert "conv.6" not in str(caught.value)
    assert "and 2 more" in str(caught.value)

    with pytest.raises(CheckpointError, match=r"conv\.3\.weight is \[4, 5\], expected \[4, 4\]"):
        check_state_dict({**fitting, "conv.3.weight": torch.zeros(4, 5)}, expected, "BigVGAN")
    with pytest.raises(CheckpointError, match="extra is unexpected"):
        check_state_dict({**fitting, "extra": torch.zeros(1)}, expected, "BigVGAN")
    wrapped = {f"wrapped.{name}": each for name, each in fitting.items()}
    with pytest.raises(CheckpointError, match=r"conv\.0\.weight is missing; wrapped\.conv\.0\.weight is unexpected"):
        check_state_dict(wrapped, expected, "BigVGAN")


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_state_of_another_layout_is_told_what_to_save(key: str, tmp_path: Path) -> None:
    torch.save({key: {"conv.weight": torch.zeros(2)}, "steps": 5}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=rf"'{key}' is a dict, not a tensor\. Save .*\"generator\": "):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no config.json"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "JSON list"),
        (b"[" * 100_000, "not JSON"),
        (b" " * 2_000_000, "megabyte"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises((CheckpointError, WeightsNotFoundError), match=said):
        read_config(tmp_path / "config.json")


def test_a_folders_configuration_decides_and_a_files_own(tmp_path: Path) -> None:
    torch.save({"generator": STATE, "config": {"num_mels": 100}}, tmp_path / "model.pt")
    assert load_checkpoint(tmp_path).config == {"num_mels": 100}
    (tmp_path / "config.json").write_text('{"num_mels": 80}')
    assert load_checkpoint(tmp_path).config == {"num_mels": 80}
    assert load_checkpoint(tmp_path / "model.pt").config == {"num_mels": 100}


def test_what_weights_may_be(tmp_path: Path) -> None:
    torch.save({"generator": STATE}, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text('{"num_mels": 80}')
    for weights in (tmp_path, str(tmp_path), tmp_path / "model.pt"):
        read = load_checkpoint(weights)
        assert same(read.state_dict)
        assert read.config == {"num_mels": 80}
        assert read.path == tmp_path / "model.pt"
    assert load_checkpoint(STATE).config is None
    for key in ("config", "h"):
        assert load_checkpoint({"generator": STATE, key: {"a": 1}}).config == {"a": 1}
        read = load_checkpoint({**STATE, key: {"a": 1}})
        assert same(read.state_dict)
        assert read.config == {"a": 1}
    for stored in (Namespace(a=1), {"a": 1}):
        assert load_checkpoint({"generator": STATE, "config": stored}).config == {"a": 1}
        assert load_checkpoint({**STATE, "h": stored}).config == {"a": 1}
    for state in ({"generator": STATE, "config": None}, {**STATE, "h": None}):
        assert load_checkpoint(state).config is None
    for state in ({"generator": STATE, "config": '{"a": 1}'}, {**STATE, "config": '{"a": 1}'}):
        with pytest.raises(CheckpointError, match="'config' is a str, expected the configuration"):
            load_checkpoint(state)
    for weights, said in ((tmp_path / "nothing", "There is no"), (None, "not on the Hub")):
        with pytest.raises(WeightsNotFoundError, match=said):
            load_checkpoint(weights)
    with pytest.raises(OptionError, match="takes a folder, a file or a state dict .*, not int"):
        load_checkpoint(5)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsNotFoundError, match="no checkpoint in"):
        load_checkpoint(tmp_path)
    torch.save(STATE, tmp_path / "a.pt")
    (tmp_path / "notes.txt").write_text("")
    assert load_checkpoint(tmp_path).path == tmp_path / "a.pt"
    torch.save(STATE, tmp_path / "b.pt")
    with pytest.raises(WeightsNotFoundError, match=r"a\.pt, b\.pt"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, names=["b.pt"]).path == tmp_path / "b.pt"
    for steps in ("g_00000100", "g_00002000"):
        torch.save({"generator": STATE}, tmp_path / steps)
    assert load_checkpoint(tmp_path, names=["x.pt", "g_*"]).path == tmp_path / "g_00002000"
    for name in ("a.pt", "b.pt"):
        os.rename(tmp_path / name, tmp_path.parent / name)
    (tmp_path / "do_00002000").write_bytes(b"the optimizer's")
    assert load_checkpoint(tmp_path).path == tmp_path / "g_00002000"
    os.rename(tmp_path.parent / "b.pt", tmp_path / "b.pt")
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"no config\.json"):
        load_checkpoint(tmp_path, names=["b.pt"])
    assert load_checkpoint(tmp_path / "b.pt").config is None


def test_a_file_of_ones_own_may_be_overwritten_afterwards(tmp_path: Path) -> None:
    """A training that saves again shortens the file under what is mapped from it."""
    path = tmp_path / "g_00000001"
    torch.save({"generator": STATE}, path)
    state = load_checkpoint(path).state_dict
    path.write_bytes(b"")
    assert same(state)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_a_bigvgan_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: str) -> None:
    from distill_core import registry
    from tests import checkpoints

    config = checkpoints.bigvgan_config()
    state = checkpoints.bigvgan_state(config)
    names = sorted(name for name in state if name.endswith(".bias"))[:7]
    for name in names:
        if change == "missing":
            del state[name]
        elif change == "extra":
            state[f"new.{name}"] = state[name]
        else:
            state[name] = torch.zeros(3, 3)
    torch.save({"generator": state}, tmp_path / "bigvgan_generator.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        registry.get("bigvgan", weights=tmp_path, device="cpu")
    said = str(caught.value)
    assert sum(name in said for name in names) == 5
    assert "2 more" in said
    assert "\n" not in said


def test_a_name_that_is_too_long_is_no_fault_of_the_plugin() -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        load_checkpoint("x" * 5000)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that anybody may enter, and nobody's rights while root runs the tests."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "locked").mkdir(mode=0o000)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        (folder / "locked").chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("name", ["locked", "locked/model.pt"])
def test_a_folder_that_may_not_be_read_is_not_called_empty(as_nobody: Path, name: str) -> None:
    assert stamp(as_nobody / name) is None
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        load_checkpoint(as_nobody / name)


def test_what_tells_that_the_weights_of_a_folder_are_others(tmp_path: Path) -> None:
    pin = WeightsPin("owner/name", "main", {"weights.dat": (None, None), "absent.dat": (None, None)})
    (tmp_path / "logs").mkdir()
    (tmp_path / "weights.dat").write_bytes(b"1")
    before = stamp(tmp_path, pin)
    os.utime(tmp_path / "logs", (1, 1))  # as it is written to
    assert before is not None
    assert stamp(tmp_path, pin) == before
    (tmp_path / "weights.dat").write_bytes(b"12")
    assert stamp(tmp_path, pin) != before


def test_tensors_that_were_made_in_inference_mode_are_told_apart() -> None:
    with torch.inference_mode():
        state = {"weight": torch.zeros(2)}
    before = stamp(state)
    assert stamp(state) == before
    state["weight"] = state["weight"].clone()
    assert stamp(state) != before


def test_a_tensor_that_lies_where_another_lay_is_another() -> None:
    """As where a training replaces the tensors of the state dict that it hands over."""
    state = {"generator": {"weight": torch.zeros(2)}, "config": None}
    before, address = stamp(state), id(state["generator"]["weight"])
    assert stamp(state) == before
    for _ in range(1000):
        del state["generator"]["weight"]
        state["generator"]["weight"] = torch.ones(2)
        if id(state["generator"]["weight"]) == address:
            break
    else:
        pytest.skip("this Python puts no object where another was")
    assert stamp(state) != before
