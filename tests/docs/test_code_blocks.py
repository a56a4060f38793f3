"""Every fenced block of README.md, distill-core's own and docs/ is run or read; one that nobody can test is an error.

A page is one process in a folder of its own, in which its Python blocks and its commands come one after another. It
has HiFi-GAN's trained weights, sounds under the names that the pages use, and a Hub on loopback that holds a narrow
BigVGAN under the names of NVIDIA's. What a command prints is compared with what the page shows; see
`page_process.difference` for how loosely. What cannot be run here is listed below, with the reason and what is
looked at instead.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from distill_core.audio import read_audio, write_audio
from distill_core.resample import resample
from tests import checkpoints
from tests.conftest import ROOT
from tests.docs import readers
from tests.docs.blocks import TUTORIAL, TUTORIAL_SECTIONS, BadBlock, Block, Step, blocks, pages, steps
from tests.hub_server import HubServer, sha256

HERE = Path(__file__).parent
REPO = "nvidia/bigvgan_v2_44khz_128band_512x"


@dataclass(frozen=True)
class NotRun:
    """Commands that are read instead of run: which, why, and what is looked at."""

    pattern: str
    why: str
    look: Callable[[str], None] = readers.nothing


NOT_RUN = (
    NotRun(r"pip install .*", "changes the environment; test_authors.py runs the tutorial's", readers.requirements),
    NotRun(r"make .*", "sets up an environment of its own; .ci/run runs it", readers.make_target),
    NotRun(r"python -m (benchmarks|training)\.\w+.*", "takes minutes", readers.module_and_options),
    NotRun(r"(python -m )?pytest .*", "is this very suite", readers.paths),
    NotRun(r"python tools/recordings\.py( --training)?", "downloads packages; `make test` runs it", readers.script),
    NotRun(r"apt-get install .*", "needs root and Debian's archive"),
    NotRun(r"rsync .*", "needs a second machine"),
    NotRun(r"pyinstaller .*", "takes minutes and gigabytes"),
    NotRun(r"ray start .*", "needs a cluster"),
    NotRun(r"ray job submit .*", "needs a cluster", readers.command_line),
    NotRun(r"distill-vocoder .*--address .*", "needs a cluster", readers.command_line),
    NotRun(r"distill-vocoder .*(s3|gs)://.*", "needs object storage", readers.command_line),
    NotRun(r"distill-vocoder playground.*", "serves until Ctrl-C; tests/playground drives it", readers.command_line),
)

# What a page's text takes for granted: the mels that a reader's own model makes, a sound card, and onnxruntime with a
# file that it can load.
GIVEN = {
    "README.md": """
import torch
mel, mels, play = torch.full((1, 128, 40), -6.0), [torch.rand(1, 128, 20), torch.rand(1, 128, 15)], len
""",
    "distill_core/README.md": """
import torch
mel, mels, play = torch.full((1, 80, 40), -6.0), [torch.full((1, 80, 20), -6.0)], len
""",
    "docs/index.md": "import torch; mel = torch.full((1, 80, 40), -6.0)",
    "docs/plugins.md": """
import sys
from types import SimpleNamespace
import numpy

class Session:
    def __init__(self, path, options, providers):
        if path != "generator.onnx":
            raise RuntimeError("no such file")
    def get_inputs(self):
        return [SimpleNamespace(name="mel", shape=["B", 100, "T"])]
    def run(self, names, inputs):
        return [numpy.tanh(inputs["mel"][:, :1]).repeat(256, axis=2)]

sys.modules["onnxruntime"] = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
""",
    "docs/mel-formats.md": """
import torch
waveform = 0.1 * torch.randn(1, 44_100)
""",
}

HEAVY = dict.fromkeys(("docs/cluster.md", "docs/corpora.md"), "heavy")
"""Pages that start many processes, and their group."""

# Blocks whose packages only tests/install has: they are compiled here.
COMPILED = {
    "docs/examples/distill-vocos/README.md": "vocos, which tests/install/test_authors.py installs",
}


def page_cases() -> list:
    return [pytest.param(page, id=page, marks=pytest.mark.xdist_group(HEAVY.get(page, page))) for page in pages()]


def not_run(step: Step) -> NotRun | None:
    """The entry of `NOT_RUN` that a command falls under."""
    if step.kind != "command":
        return None
    return next((each for each in NOT_RUN if re.fullmatch(each.pattern, step.text, re.DOTALL)), None)


def to_run(found: Sequence[Block], *, compiled: bool = False) -> list[Step]:
    """The steps of a page that are run; what is only read is looked at here.

    Raises:
        BadBlock: a block that no test knows, or one that does not stand up to being read.
    """
    running = []
    for block in found:
        if block.page == TUTORIAL and block.section in TUTORIAL_SECTIONS:
            continue
        for step in steps(block):
            entry = not_run(step)
            if entry is not None:
                try:
                    entry.look(step.text)
                except ValueError as error:
                    raise BadBlock(f"{block}: {step.text}: {error}") from error
            elif compiled and step.kind == "python":
                compile(step.text, block.page, "exec")
            else:
                running.append(step)
    return running


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A Hub that holds a narrow BigVGAN as the default variant, at the commit that is pinned."""
    from distill_bigvgan.plugin import CARD

    pin = CARD.variant().weights
    assert pin is not None and pin.repo == REPO
    with HubServer() as server:
        config = checkpoints.bigvgan_config(64, CARD.default_variant)
        server.add(REPO, checkpoints.bigvgan_files(config), commit=pin.revision)
        yield server


@pytest.fixture
def reader(hub: HubServer, trained_hifigan: object, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs steps as a reader would, in a folder with sounds in it."""
    folder = tmp_path / "reader"
    (folder / "recordings" / "words").mkdir(parents=True)
    wave, rate = read_audio(ROOT / "samples" / "speech.flac")
    speech = wave[:, : rate * 6 // 5]
    for name in ("speech.wav", "in.wav", "recordings/speech.wav", "recordings/words/one.wav"):
        write_audio(folder / name, speech, rate)
    music = resample(speech, rate, 44_100).expand(2, -1)
    for name in ("music.flac", "recordings/words/two.flac"):
        write_audio(folder / name, music, 44_100)
    import numpy

    from distill_core import MelSpec

    numpy.save(folder / "mel.npy", MelSpec.preset("hifigan-22khz-80band").analyze(speech)[0].numpy())

    files = hub.repos[REPO][hub.branches[REPO]["main"]]
    held = {REPO: {name: (len(data), sha256(data)) for name, data in files.items()}}
    environment = {
        **hub.env(tmp_path / "huggingface"),
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "pins"), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DOCS_HUB_FILES": json.dumps(held),
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib")),
        "COLUMNS": "120",
        "CUDA_VISIBLE_DEVICES": "",  # what pages show is what a machine without a GPU prints
    }

    def run(name: str, todo: Sequence[Step]) -> subprocess.CompletedProcess[str]:
        page = {"name": name, "isolated": False, "steps": [vars(step) for step in todo]}
        command = [sys.executable, str(HERE / "page_process.py")]
        return subprocess.run(
            command, input=json.dumps(page), cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


@pytest.mark.parametrize("page", page_cases())
def test_a_page_does_what_it_says(page: str, reader) -> None:
    todo = to_run(blocks(page), compiled=page in COMPILED)
    if not todo:
        return
    given = Step("python", 0, GIVEN[page]) if page in GIVEN else None
    done = reader(page, [given, *todo] if given else todo)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_exception_is_still_one() -> None:
    every = [step for page in pages() for block in blocks(page) for step in steps(block)]
    for entry in NOT_RUN:
        assert any(not_run(step) is entry for step in every), f"nothing in the documentation reads {entry.pattern}"
    for page in (*GIVEN, *COMPILED):
        assert page in pages() and any(steps(block) for block in blocks(page)), page
    assert {block.section for block in blocks(TUTORIAL)} >= set(TUTORIAL_SECTIONS)


# That it can fail


PLANTED = {
    "python that raises": ("python", "x = 1\nundefined_name\n", "line 3.*NameError"),
    "an answer that is another": ("pycon", ">>> 1 + 1\n3\n", "it prints.*2.*3"),
    "another error": ("pycon", ">>> int('x')\nTraceback (most recent call last):\nValueError: no\n", "prints"),
    "output that is another": ("console", "$ echo one\ntwo\n", "it prints.*one.*two"),
    "output that goes on": ("console", "$ printf 'one\\ntwo\\n'\none\n", "it prints"),
    "a command that fails": ("console", "$ false\n", "exit code 1"),
    "a command that should fail": ("console", "$ echo 'error: x'\nerror: x\n", "exit code 0"),
    "no such command": ("sh", "distill-vocoder sing\n", "invalid choice"),
    "an option that is gone": ("console", "$ distill-vocoder list --loud\n", "unrecognized arguments"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_bad_block_is_found(what: str, reader, tmp_path) -> None:
    language, text, complaint = PLANTED[what]
    done = reader("bad.md", to_run(planted(tmp_path, language, text)))
    assert done.returncode == 1
    assert re.search(complaint, done.stdout, re.DOTALL), done.stdout


@pytest.mark.parametrize(
    ("language", "text", "complaint"),
    [
        ("", "distill-vocoder list\n", "no test knows .* a block without a language"),
        ("ruby", "puts 1\n", "no test knows .* ruby"),
        ("json", '{"a": }\n', "json"),
        ("jsonl", '{"a": 1}\n{\n', "jsonl"),
        ("toml", "a = \n", "toml"),
        ("yaml", "a: [\n", "yaml"),
        ("dockerfile", "RUNN x\n", "no instruction"),
        ("text", "$ distill-vocoder list\n", "something to run"),
        ("text", "", "empty"),
        ("console", "no command\n", "begins with output"),
        ("console", "$ pip install distill-nothing\n", "distill-nothing"),
        ("console", "$ pip install 'distill-core[sing]'\n", "sing"),
        ("sh", "pip install ./no_such_folder\n", "no_such_folder"),
        ("console", "$ make sense\n", "sense"),
        ("console", "$ python -m benchmarks.nothing\n", "nothing"),
        ("console", "$ python -m benchmarks.cpu --loud\n", "--loud"),
        ("console", "$ pytest tests/no_such_test.py\n", "no_such_test"),
        ("sh", "distill-vocoder vocode x -o y --address auto --loud\n", "--loud"),
    ],
)
def test_a_bad_block_is_found_without_being_run(language, text, complaint, tmp_path) -> None:
    with pytest.raises(BadBlock, match=complaint):
        to_run(planted(tmp_path, language, text))


def test_a_fence_that_is_not_closed_is_found(tmp_path) -> None:
    page = tmp_path / "open.md"
    page.write_text("```python\nx = 1\n")
    with pytest.raises(BadBlock, match="not closed"):
        blocks(page)


def planted(folder: Path, language: str, text: str) -> list[Block]:
    page = folder / "bad.md"
    page.write_text(f"```{language}\n{text}```\n")
    return blocks(page)
