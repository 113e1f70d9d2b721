"""Wrong and odd command lines, each in a process of its own: none may end in anything but a line and a known code."""

import io
import os
import random
import resource
import signal
import sys
import time
from importlib import import_module

SECONDS = 20
"""What takes longer is a long piece of work, which must stop when it is told to,"""
STOPS = 120
"""in so many seconds, on a slow machine too."""
MEMORY = 6 * 2**30
TINY = {
    "compare": "--stages 1 --stage-size 40 --seeds 1 --max-epochs 1 --methods cold --jobs 1 --device cpu --threads 1",
    "theory": "--stages 2 --seeds 1 --examples 60 --gamma 5",
    "theory gradient-descent": "--stages 2 --seeds 1 --max-steps 3 --filters 2 --methods cold",
    "reproduce cifar10": "--data nosuch.tar.gz --device cpu --dry-run",
    "report": "nosuch",
    "methods": "",
    "": "",
}
# fmt: off
NUMBERS = (
    "0", "1", "-1", "2", "1.5", "nan", "inf", "-inf", "1e999", "1e-320", "99999999999999999999", "0x10", "1_0", "٣",
)
WORDS = (
    "", " ", "x", "auto", "cpu", "cuda:99", "digits", "cold", "cold,cold", "dash[", "dash[alpha=nan]", "dash]alpha=1[",
    "dash[alpha=0.1,alpha=0.2]", "os:system", "a:b:c", ":", "hf:", "/dev/null", "none", "yes",
    "-", "--", "é猫", "a\x1b[31mb", "\u202egnp.exe", "a\nb\r", "x" * 300, "x" * 9000, "%s%n", "{0}", "$HOME", "[red]x",
    ":smile:", "\udcff", "\udc80[x=1]", "a,b,,c", "folder", "empty", "file.npz", "loop", "small-cnn[width=-1]", "mlp[",
    "\\",
)
CONFIGS = (
    "stages: [", "- a\n- b", "stages: yes", "stages: 1e999", "lr: .nan", "methods: {a: 1}", "methods: 3", "out: null",
    'out: "a\\0b"', 'data: "a\\0b"', 'model: "\\x1b[31m"', 'data: "\\uDCFF"', "? [a]\n: b", "!!python/object:os.x {}",
    "&a [*a]", "1: 2", "stages: 2020-01-01", "seeds: 0x10", "\t", "stages: 1\nstages: 2", "\ufeffstages: 1", "null", "",
    "recorded: 3", "{}", "lr: 1e-3", "until: '0.9'", "stages: 1__0", "methods: [cold, [warm]]", "data: !!binary aGk=",
)
TYPOS = (
    "--nonsense", "--stges", "-x", "--", "--help=1", "--version=", "--seed", "---", "--stages=", "--lr==1", "-h", "--é",
    "--\x1b",
)
# fmt: on


def flags_of(command):
    """The flags of a command, as its settings have them."""
    from warmstart.comparison.settings import CompareSettings
    from warmstart.reproduction.settings import ReproduceSettings
    from warmstart.theory.settings import DescentSettings, DiscreteSettings

    kinds = {"compare": CompareSettings, "theory": DiscreteSettings, "theory gradient-descent": DescentSettings}
    kind = ReproduceSettings if command.startswith("reproduce") else kinds.get(command)
    names = (
        [] if kind is None else [name for name in kind.described() if name not in ("ray_address", "track", "executor")]
    )
    return [f"--{name.replace('_', '-')}" for name in names] + ["--margin"] * (command == "report")


def odd_line(chance, folder):
    """A command line that is nearly always wrong, and a small piece of work where it is not."""
    command = chance.choice([*TINY, "compare", "compare", "compare"])
    line = [*command.split(), *TINY[command].split()]
    flags = flags_of(command)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        kind = chance.random()
        if kind < 0.6 and flags:
            flag, value = chance.choice(flags), chance.choice(chance.choice((NUMBERS, WORDS)))
            line += [f"{flag}={value}"] if chance.random() < 0.4 else [flag, value]
        elif kind < 0.75:
            line.insert(chance.randint(0, len(line)), chance.choice(TYPOS))
        elif kind < 0.85:
            line.insert(chance.randint(0, len(line)), chance.choice(WORDS))
        elif command == "compare":
            (folder / "config.yaml").write_text(chance.choice(CONFIGS), encoding="utf-8")
            line.append("config.yaml")
        elif line:
            line.pop(chance.randrange(len(line)))
    return [argument for argument in line if "\0" not in argument]


def furnish(folder):
    """What a command line may name: an empty folder, one of odd images, a file that is none, a link to nowhere."""
    (folder / "empty").mkdir()
    for name in ("a\x1b[31m", "b\udcff"):
        (folder / "folder" / name).mkdir(parents=True)
        (folder / "folder" / name / "image\n.png").write_bytes(b"no image")
    (folder / "file.npz").write_bytes(b"PK no archive")
    (folder / "loop").symlink_to("nowhere")


def run_apart(line, folder):
    """Run a command line in a fork of this process; its exit code, stdout and stderr."""
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as err:
        child = os.fork()
        if child == 0:
            _be_the_command(line, folder, out.fileno(), err.fileno())
        code = _wait(child, SECONDS)
        if code is None:
            os.kill(child, signal.SIGTERM)
            code = _wait(child, STOPS)
        if code is None:
            os.kill(child, signal.SIGKILL)
            code = _wait(child, STOPS)
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


def _be_the_command(line, folder, out, err):
    code = 99
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
        sys.argv = ["warmstart", *line]
        from warmstart.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def complaints(code, out, err):
    """What is wrong with the end of a command."""
    lines = err.splitlines()
    found = []
    if code not in (0, 2, 130):
        found.append(f"code {code}")
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("warmstart: ")):
        found.append("not one line")
    if "Traceback" in err or "ignored" in err:
        found.append("a traceback")
    if not all(line.isprintable() for line in (out + err).split("\n")):
        found.append("control characters")
    if max(map(len, lines), default=0) > 30_000:
        found.append("an endless line")
    return found


def prepare():
    """Import all that a command needs, so that each fork has it."""
    os.environ.update(COLUMNS="100", TERM="dumb", HF_HUB_OFFLINE="1")
    import torch

    heavy = ("comparison.images", "reproduction.reproduction", "theory.page", "theory.descent_study")
    for module in (*heavy, *(f"cli.{name}" for name in ("app", "compare", "reproduce", "theory", "report", "methods"))):
        import_module(f"warmstart.{module}")
    torch.set_num_threads(1)


def trial(seed, number, folder):
    """One odd command line in an empty folder; what was wrong or None."""
    furnish(folder)
    line = odd_line(random.Random(f"{seed} {number}"), folder)
    code, out, err = run_apart(line, folder)
    found = complaints(code, out, err)
    return f"{line}: {', '.join(found)}: {err[-500:]}" if found else None
