"""The program as a whole: its help, what it prints where, and how it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from optogram.cli import main
from optogram.cli.manners import unbroken
from optogram.core.technique import techniques
from optogram.version import __version__

PROGRAM = Path(sys.executable).with_name("optogram")
HELP = """\
Usage: optogram [OPTIONS] [COMMAND] [ARGS]...

  See what the units of a trained network respond to, and which pixels made it
  say so.

  A NET is a name from 'optogram networks', torchvision:NAME, timm:NAME or
  FILE.py:FUNCTION. A UNIT is layer:17, layer:17@3,5, layer:17@strongest or
  output:LABEL; layer, layer:0-9 and 'conv*:*' are many units. An IMAGE is a
  file, or digits:3, number 3 of a data set.

Options:
  --debug     Show the traceback of an error.
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Techniques:
  (as many as there are)

Other commands:
  atlas     Build, check and share an atlas: every unit of a network, in a
            folder.
  layers    List a network's layers: name, kind, output shape, units, receptive
            field.
  methods   List the techniques.
  networks  List the networks that can be asked.
  replay    Make a saved result again and say whether it is the same.
  serve     Open the explorer of an atlas; further atlases are there to compare
            with.
  study     Repeat an experiment and write a report; alone, list what there is.
  survey    Show a data set to a network once: what excites every unit, and how
            each behaves.
  tour      Show every technique on the embedded networks, in one HTML report.
  train     Train a network of the zoo; a run that was stopped goes on where it
            was.

  Examples:
    optogram layers mnist-mlp
    optogram maximize mnist-mlp output:7 fc7:1 -o sheet.png
    optogram saliency mnist-mlp digits:3 output:3 -o why.png
    optogram replay why.png
"""


def start(*words: object, **streams: object) -> subprocess.Popen[str]:
    command = [str(word) for word in (PROGRAM, *words)]
    return subprocess.Popen(command, text=True, **streams)


def hear_control_c() -> None:
    """Where the tests run in the background they ignore it, and their children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_main_page():
    page = CliRunner().invoke(main, ["--help"]).stdout
    counted = "Techniques:\n  (as many as there are)\n\n"
    assert re.sub(r"Techniques:\n(  .+\n)+\n", counted, page) == HELP


def test_the_main_page_lists_every_technique_with_its_own_sentence():
    page = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    for name, technique in techniques().items():
        assert f"{name.replace('_', '-')} {technique.summary}" in page


def test_the_program_alone_explains_itself(optogram):
    assert optogram().stdout == optogram("-h").stdout
    assert optogram().exit_code == 0


def test_the_version(optogram):
    assert optogram("--version").stdout == f"optogram {__version__}\n"


def test_a_command_that_is_not_there(refused):
    assert "'maximize'" in refused("maximise", "net", "unit")
    assert "'layers'" in refused("layer", "net")


def test_an_option_that_the_program_has_not(refused):
    assert "'--verbose'" in refused("--verbose")


def test_help_loads_nothing_heavy():
    heavy = ["torch", "torchvision", "numpy", "PIL", "sklearn", "skimage", "matplotlib", "rich"]
    look = "import sys; from optogram.cli import main\ntry: main(['--help'])\n"
    look += f"except SystemExit: print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_run_that_fails_says_what_failed_in_one_line(refused, file):
    said = refused("maximize", f"{file}:failing", "output:0", "--json", code=1)
    assert said.startswith("RuntimeError: out of memory. Tried to allocate 80 GiB (--debug")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["maximize", "{file}:failing", "output:0", "--json"], 1, "RuntimeError: out of memory"),
        (["maximize", "{file}:nothing", "output:0", "--json"], 2, "RequestError: "),
    ],
)
def test_debug_shows_where_it_happened(optogram, file, words, code, error):
    result = optogram(*[word.format(file=file) for word in words], "--debug")
    assert result.exit_code == code
    assert "Traceback (most recent call last)" in result.stderr
    assert error in result.stderr
    assert result.stdout == ""


def test_what_a_network_prints_and_warns_of_stays_out_of_the_result(optogram, file):
    result = optogram("maximize", f"{file}:noisy", "output:0", "--steps", 1, "--json")
    assert json.loads(result.stdout)["technique"] == "maximize"
    assert set(result.stderr.splitlines()) == {"to standard output"}


def test_an_interruption_is_one_line(refused, file):
    said = refused("maximize", f"{file}:interrupted", "output:0", "-o", "x.png", code=130)
    assert said == "interrupted"


@pytest.fixture
def control_c():
    """Whether or not the tests run in the background, where it is not heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_control_c_while_torch_is_imported_is_heard_after_it(control_c):
    done = []

    def load():
        with unbroken():
            control_c()
            done.append("import")
        done.append("work")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["import"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_does_not_hear_control_c_goes_on_not_to(control_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with unbroken():
        control_c()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_control_c_in_the_middle_of_a_long_run_leaves_no_file(file, tmp_path):
    words = ("maximize", f"{file}:reporting", "output:0", "--steps", 10**9, "-o", "x.png")
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with start(*words, cwd=tmp_path, preexec_fn=hear_control_c, **pipes) as run:
        for _ in range(20):
            assert run.stderr.readline() == "a pass\n"
        run.send_signal(signal.SIGINT)
        printed, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said.replace("a pass\n", "") == "optogram: interrupted\n"
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_reader_that_goes_away_is_no_failure():
    ours, theirs = os.pipe()
    os.close(ours)
    with start("methods", stdout=theirs, stderr=subprocess.PIPE) as run:
        os.close(theirs)
        _, said = run.communicate(timeout=60)
    assert (said, run.returncode) == ("", 0)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_is_shown_on_a_terminal(grey, tmp_path):
    ours, theirs = pty.openpty()
    words = ("maximize", grey, "0", "output", "--steps", 1, "--json")
    with start(*words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs) as run:
        os.close(theirs)
        printed, _ = run.communicate(timeout=120)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "maximize" in shown
    assert "100%" in shown
    assert len(json.loads(printed)["results"]) == 7


def test_no_progress_is_shown_in_a_pipe(optogram, grey):
    assert optogram("maximize", grey, "0", "output", "--steps", 1, "--json").stderr == ""
