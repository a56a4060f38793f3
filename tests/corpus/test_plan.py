"""What a corpus consists of, and where each result belongs."""

from __future__ import annotations

import glob
import json
import os
import pickle
import re
import sys
from pathlib import Path, PureWindowsPath

import pytest

from distill_core.cli.vocode import plan as command_plan
from distill_core.corpus import files, remote
from distill_core.corpus import plan as plans
from distill_core.corpus.plan import Item, Plan, is_corpus, matching
from distill_core.errors import CorpusError, DistillError, OutputExistsError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("b.wav", "a/z.flac", "a/ü mel.npy", "a/deep/x.mp3", "c.OGG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(plan: Plan) -> list[tuple[str, str]]:
    return [(item.input, item.output) for item in plan]


def below(folder: Path, plan: Plan) -> list[str]:
    return [str(Path(item.output).relative_to(folder)) for item in plan]


def test_a_folder_keeps_its_tree_in_one_order(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = Plan((str(tree),), str(out))
    assert below(out, plan) == ["a/deep/x.wav", "a/z.wav", "a/ü mel.wav", "b.wav", "c.wav"]
    assert list(plan) == list(plan)
    assert all(Path(item.input).exists() for item in plan)
    assert [item.is_mel for item in plan] == [False, False, True, False, False]
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert below(out, Plan((str(tree),), str(out), ending=".flac", keep_endings=True))[0] == "a/deep/x.mp3.flac"


@pytest.mark.parametrize("other", ["x.1.wav", "x.2.npy"])
def test_names_that_several_mels_of_a_file_could_get(other: str, tmp_path: Path) -> None:
    for name in ("x.npy", other, "x.01.wav", "y.1.wav", "2.wav"):
        (tmp_path / name).touch()
    for sources in ((str(tmp_path),), (str(tmp_path / "x.npy"), str(tmp_path / other)), (str(tmp_path / "*.*"),)):
        with pytest.raises(OutputExistsError, match=r"x\.0\.wav and so on"):
            names(Plan(sources, str(tmp_path.parent / "out")))
    assert len(names(Plan((str(tmp_path),), str(tmp_path.parent / "out"), keep_endings=True))) == 5
    (tmp_path / other).unlink()
    assert len(names(Plan((str(tmp_path),), str(tmp_path.parent / "out")))) == 4


def test_what_is_hidden_or_of_another_kind_is_left_alone(tree: Path, tmp_path: Path) -> None:
    for name in (".hidden.wav", "._b.wav", ".cache/x.wav", "notes.txt", "cover.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    os.mkfifo(tree / "pipe.wav")  # reading it would wait for ever
    assert len(names(Plan((str(tree),), str(tmp_path / "out")))) == 5


def test_links_are_followed_but_not_in_circles(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.wav").touch()
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "a" / "loop").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    (tree / "lost.wav").symlink_to(tmp_path / "nothing here")
    found = below(tmp_path / "out", Plan((str(tree),), str(tmp_path / "out")))
    assert "linked/far.wav" in found
    assert "lost.wav" in found  # it will be reported
    assert not [name for name in found if "loop" in name or "self" in name]


def test_a_folder_of_results_among_the_inputs_is_no_input(tree: Path) -> None:
    out = tree / "a" / "results"
    out.mkdir()
    (out / "b.wav").touch()
    assert below(out, Plan((str(tree),), str(out))) == ["a/deep/x.wav", "a/z.wav", "a/ü mel.wav", "b.wav", "c.wav"]
    found = [item.input for item in Plan((f"{tree}/**/*.wav",), str(out))]
    assert found == [str(tree / "b.wav")]


def test_inputs_are_not_written_onto(tree: Path) -> None:
    with pytest.raises(CorpusError, match="is an input as well"):
        list(Plan((str(tree),), str(tree)))
    link = tree.parent / "link"
    link.symlink_to(tree)
    with pytest.raises(CorpusError, match="is an input as well"):
        list(Plan((str(tree),), str(link)))
    (tree / "in").mkdir()
    (tree / "in" / "q.wav").touch()
    with pytest.raises(OutputExistsError, match="among the inputs"):
        list(Plan((str(tree),), str(tree.parent)))
    for pattern in ("*.wav", "**/*.flac"):
        with pytest.raises(CorpusError, match="lies in the output folder"):
            list(Plan((f"{tree}/{pattern}",), str(tree)))


def test_what_a_manifest_or_a_name_reads_is_not_written_onto(tree: Path) -> None:
    """A list that lies among its recordings is the usual one; what it says is written there must be something else."""
    link = tree.parent / "link"
    link.symlink_to(tree)
    there, flac = str(tree / "b.wav"), {"input": "a/z.flac", "output": "b.wav"}
    for lines in ([{"input": "b.wav"}], [flac, {"input": there, "output": "c.wav"}], [{"input": there}, flac]):
        for out in (tree, link):
            with pytest.raises(OutputExistsError, match=r"b\.wav: is an input"):
                list(Plan((manifest(tree, *lines),), str(out)))
    with pytest.raises(OutputExistsError, match=r"b\.wav: is an input"):
        list(Plan((there,), str(tree)))
    assert len(list(Plan((manifest(tree, flac, {"input": "a/z.flac"}),), str(tree)))) == 2


def test_a_glob_keeps_the_tree_below_its_fixed_part(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert below(out, Plan((f"{tree}/a/**/*.*",), str(out))) == ["deep/x.wav", "z.wav", "ü mel.wav"]
    assert below(out, Plan((f"{tree}/*.wav", f"{tree}/a/z.flac"), str(out))) == ["b.wav", "z.wav"]
    with pytest.raises(CorpusError, match="no file matches"):
        list(Plan((f"{tree}/*.aiff",), str(out)))


def test_a_glob_goes_through_links_but_not_in_circles(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.flac").touch()
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "a" / "up").symlink_to(tree)  # with two of them there are more ways than can ever be gone
    (tree / "a" / "deep" / "up").symlink_to(tree)
    found = [os.path.relpath(path, tree) for path in matching(f"{tree}/**/*.*")]
    assert found == ["a/deep/x.mp3", "a/z.flac", "a/ü mel.npy", "b.wav", "c.OGG", "linked/far.flac"]
    assert below(tmp_path / "out", Plan((f"{tree}/**/*.flac",), str(tmp_path / "out"))) == ["a/z.wav", "linked/far.wav"]


@pytest.mark.parametrize(
    "pattern",
    ["*", "a/*", "**", "**/*", "**/*.wav", "a/**/x.mp3", "*/**/z.*", "a/**/deep/**/*", "[ab]/**/*", "./**/*.flac"],
)
def test_a_glob_means_what_pythons_does(pattern: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / ".hidden").mkdir()
    (tree / ".hidden" / "q.wav").touch()
    for folder in (tree, tree.parent):
        monkeypatch.chdir(folder)
        for each in (pattern, f"{tree}/{pattern}", f"i*/{pattern}"):
            expected = {os.path.normpath(path) for path in glob.glob(each, recursive=True) if os.path.isfile(path)}
            assert matching(each) == sorted(expected)


def test_a_glob_through_a_folder_with_brackets_in_its_name_is_told_how_to_write_them(tmp_path: Path) -> None:
    (tmp_path / "takes [2]").mkdir()
    (tmp_path / "takes [2]" / "a.wav").touch()
    out = tmp_path / "out"
    with pytest.raises(CorpusError, match=re.escape("Write [[] for a [")):
        list(Plan((f"{tmp_path}/takes [2]/*.wav",), str(out)))
    assert below(out, Plan((f"{tmp_path}/takes [[]2]/*.wav",), str(out))) == ["takes [2]/a.wav"]


def test_a_link_below_the_output_folder_leads_onto_no_input(tree: Path, tmp_path: Path) -> None:
    sound, folder = next(tree.rglob("*.wav")), tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "sub").symlink_to(sound.parent)
    manifest = tmp_path / "links.jsonl"
    onto = {"input": str(sound), "output": f"sub/{sound.name}"}
    other = {"input": str(sound), "output": "sub/other.wav"}
    manifest.write_text(json.dumps(onto))
    with pytest.raises(OutputExistsError, match="is an input; choose another output folder"):
        list(Plan((str(manifest),), str(folder)))
    manifest.write_text(json.dumps(other))
    assert [item.output for item in Plan((str(manifest),), str(folder))] == [str(folder / "sub" / "other.wav")]


def test_two_inputs_for_one_output_are_refused_with_a_way_out(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "z.wav").touch()
    with pytest.raises(OutputExistsError, match=r"z\.flac and .*z\.wav would both .*--keep-endings"):
        list(Plan((str(tree),), str(tmp_path / "out")))
    assert len(list(Plan((str(tree),), str(tmp_path / "out"), keep_endings=True))) == 6
    with pytest.raises(OutputExistsError, match="would both"):
        list(Plan((str(tree / "a"), str(tree / "a" / "*.flac")), str(tmp_path / "out"), keep_endings=True))


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_names_that_a_file_system_takes_for_one_are_refused(system: str, tmp_path: Path, monkeypatch) -> None:
    for name in ("one/Take.flac", "one/U\u0308.wav", "two/take.wav", "two/\u00dc.wav", "two/three mels.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert len(names(Plan(("one", "two"), "out"))) == 5
    assert len(command_plan(["one/Take.flac", "two/take.wav"], "out/", overwrite=False)) == 2
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(OutputExistsError, match=r"take\.wav: one.Take\.flac and two.take\.wav would both"):
        names(Plan(("one/Take.flac", "two/take.wav"), "out"))
    with pytest.raises(OutputExistsError, match=r"take\.wav: one.Take\.flac and two.take\.wav would both"):
        command_plan(["one/Take.flac", "two/take.wav"], "out/", overwrite=False)
    with pytest.raises(OutputExistsError, match=r"wav: one.*wav and two.*wav would both"):
        names(Plan(("one/U\u0308.wav", "two/\u00dc.wav"), "out"))
    with pytest.raises(OutputExistsError, match="is an input"):
        names(Plan(("one/U\u0308.wav", "two/take.wav"), "ONE"))
    with pytest.raises(CorpusError, match="is an input as well"):
        names(Plan(("one",), "ONE"))
    assert len(names(Plan(("one", "two/three mels.npy"), "out"))) == 3
    assert files.told_apart("s3://bucket/A.wav") != files.told_apart("s3://bucket/a.wav")


def manifest(folder: Path, *lines: object) -> str:
    path = folder / "list.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines), encoding="utf-8")
    return str(path)


def test_a_manifest_names_inputs_from_its_own_folder_and_outputs_below_the_other(tree: Path, tmp_path: Path) -> None:
    far = tmp_path / "far.wav"
    lines = [
        {"input": "a/z.flac"},
        "",
        {"input": str(far)},
        {"input": "a/ü mel.npy", "output": "mels/ü.flac", "mel": "distill-vae"},
        {"input": "../in/b.wav"},
    ]
    out = str(tmp_path / "out")
    assert list(Plan((manifest(tree, *lines),), out)) == [
        Item(str(tree / "a/z.flac"), f"{out}/a/z.wav"),
        Item(str(far), f"{out}/far.wav"),
        Item(str(tree / "a/ü mel.npy"), f"{out}/mels/ü.flac", "distill-vae"),
        Item(str(tree / "../in/b.wav"), f"{out}/b.wav"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", 'needs "input"'),
        ({"audio_filepath": "a.wav"}, 'needs "input"'),
        ({"input": 3}, 'needs "input"'),
        ({"input": "a.wav", "ouput": "b.wav"}, "'ouput' is not known"),
        ({"input": "a.wav", "output": "../b.wav"}, "below the output folder"),
        ({"input": "a.wav", "output": "/b.wav"}, "below the output folder"),
        ({"input": "a.wav", "output": "b.docx"}, "must end in .wav"),
        ({"input": "a.wav", "output": "b\0.wav"}, "'output' must be text"),
        ({"input": "a.wav", "mel": 5}, "'mel' must be text"),
        ({"input": "a.wav", "mel": "distil-vae"}, "Did you mean 'distill-vae'?"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_line_of_a_manifest_that_cannot_be_used_is_named_by_its_number(line, words, tmp_path: Path) -> None:
    source = manifest(tmp_path, {"input": "fine.wav"}, line)
    with pytest.raises(CorpusError, match=r"list\.jsonl, line 2: ") as caught:
        list(Plan((source,), str(tmp_path / "out")))
    assert words in str(caught.value)


@pytest.mark.parametrize("path", ["..\\b.wav", "C:b.wav", "C:\\b.wav", "\\b.wav", "/b.wav", "\\\\host\\share\\b.wav"])
def test_no_path_of_windows_leads_out_of_the_output_folder(path: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(plans, "PurePath", PureWindowsPath)
    source = manifest(tmp_path, {"input": "fine.wav", "output": "a\\b.wav"}, {"input": "a.wav", "output": path})
    with pytest.raises(CorpusError, match="line 2: 'output' must be a path below the output folder"):
        list(Plan((source,), str(tmp_path / "out")))


def test_paths_of_windows_are_added_to_urls_as_parts_of_urls(monkeypatch) -> None:
    monkeypatch.setattr(os, "sep", "\\")
    assert remote.join("s3://bucket/out/", "deep\\er\\x.wav", "y") == "s3://bucket/out/deep/er/x.wav/y"


def test_a_manifest_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Notepad and PowerShell write it."""
    path = tmp_path / "list.jsonl"
    path.write_text('{"input": "a.wav"}\n', encoding="utf-8-sig")
    assert list(Plan((str(path),), str(tmp_path / "out"))) == [Item(str(tmp_path / "a.wav"), f"{tmp_path}/out/a.wav")]


@pytest.mark.parametrize("what", ["missing.wav", "missing.jsonl", "empty.jsonl", "binary.jsonl", "empty folder"])
def test_a_source_with_nothing_in_it_is_an_error(what: str, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "empty folder":
        path.mkdir()
    elif not what.startswith("missing"):
        path.write_bytes(b"\xff\xfe\x00" if what == "binary.jsonl" else b"")
    with pytest.raises(DistillError, match=what):
        list(Plan((str(path),), str(tmp_path / "out")))


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "take [1].wav"
    assert is_corpus(str(path))
    path.touch()
    assert not is_corpus(str(path))
    assert [item.input for item in Plan((str(path),), str(tmp_path / "out"))] == [str(path)]
    assert not is_corpus("plain.wav") and is_corpus("list.jsonl") and is_corpus(str(tmp_path))


def test_names_that_are_no_text_and_very_long_ones_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    odd, long = os.fsdecode(b"\xff\xfe.wav"), "n" * 251 + ".wav"
    for name in (odd, long):
        (folder / name).touch()
    assert sorted(Path(item.input).name for item in Plan((str(folder),), str(tmp_path / "out"))) == sorted((odd, long))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in", "out"), r"in a tuple: \('in',\)"),
        (((Path("in"),), "out"), r"Path\('in'\).* as text"),
        ((("in",), Path("out")), r"Path\('out'\).* as text"),
        ((("in",), "out", "flac"), "ending must be .wav, .flac, .ogg, not 'flac'"),
    ],
)
def test_what_a_plan_cannot_be_made_of_is_said_at_once(arguments, words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        Plan(*arguments)
