"""Files of a grid's folder that are damaged, exchanged or removed: the old numbers come out, or one line."""

import json
import random
import shutil
from contextlib import suppress

from commands_trial import complaints, run_apart
from data_inputs import damage

from commands import numbers

STATES = ("done", "half")


def trial(prepared, arguments, seed, number, folder, reference):
    """Damage one or two files of a copy of a folder, then go on and report.

    Args:
        prepared: Folders of the same grid, one done and one stopped half-way, by `STATES`.
        arguments: The grid's command, without ``--out``.
        seed: Of all trials.
        number: Of this one.
        folder: Empty, and removed afterwards.
        reference: The grid's numbers.

    Returns:
        What was wrong or None.
    """
    chance = random.Random(f"{seed} tampering {number}")
    out = folder / "out"
    shutil.copytree(prepared[chance.choice(STATES)], out)
    done = [_tamper(chance, out) for _ in range(chance.choice((1, 1, 2)))]
    for command in chance.sample((("report", str(out)), (*arguments, "--out", str(out))), 2):
        code, said, err = run_apart(command, folder)
        found = [what for what in complaints(code, said, err[err.rfind("warmstart: ") :]) if what != "code 1"]
        if found:
            return f"{done}: {command[0]}: {', '.join(found)}: {err[-600:]}"
        if command[0] == "compare" and code == 0 and numbers(out) != reference:
            return f"{done}: other numbers than undisturbed"
    return None


def _tamper(chance, out):
    files = sorted(file for file in out.rglob("*") if file.is_file())
    runs = [file for file in files if file.suffix == ".safetensors"]
    important = [file for file in files if file.name == "config.yaml"] * 3 + runs
    file = chance.choice(chance.choice((files, important, important)) or files)
    way = chance.choice(("damage", "damage", "damage", "remove", "exchange", "empty", "header", "swap digits"))
    if way == "remove":
        file.unlink()
    elif way == "empty":
        file.write_bytes(b"")
    elif way == "exchange":
        file.write_bytes(chance.choice(files).read_bytes())
    elif way == "header" and file in runs:
        with suppress(ValueError, KeyError, IndexError):  # it is damaged already
            _change_header(chance, file)
    elif way == "swap digits":
        text = bytearray(file.read_bytes())
        if digits := [place for place, byte in enumerate(text[:4000]) if chr(byte).isdigit()]:
            text[chance.choice(digits)] = ord(chance.choice("0123456789"))
        file.write_bytes(text)
    elif file.stat().st_size:
        damage(chance, file)
    return f"{way} {file.relative_to(out)}"


def _change_header(chance, file):
    """Another type, shape or name of one tensor, in a header that is whole otherwise."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = chance.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    match chance.randrange(3):
        case 0:
            entry["dtype"] = chance.choice(("I32", "U32", "F32", "F64", "I64", "BF16"))
        case 1:
            entry["shape"] = entry["shape"][::-1]
        case _:
            header[name + "x"] = header.pop(name)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
