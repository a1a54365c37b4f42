"""Files made to do harm are refused by every reader, and what they would have written is not there.

Each payload is a pickle that writes a file when a usual unpickler loads it, or that takes all memory or time. It comes
bare, in a zip file of PyTorch's, in the format before it, and as a payload within a tensor.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganvas import cli
from ganvas.errors import CheckpointError
from ganvas.files.published import read_state
from ganvas.interop.torch_files import MAGIC, PROTOCOL, read_checkpoint

STOP = b"."


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """The instructions that call a function by name."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def by_stack(module: str, name: str, *arguments: bytes) -> bytes:
    """The same in protocol 4."""
    return text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR"


def from_memo(module: str, name: str, *arguments: bytes) -> bytes:
    """The same, with both words laid away and fetched again."""
    return text(name) + b"\x94" + text(module) + b"\x94" + b"00h\x01h\x00\x93(" + b"".join(arguments) + b"tR"


def attacks(canary: Path) -> dict[str, bytes]:
    """name -> instructions that leave something on the stack; all but the last few would write `canary`."""
    shell, write = text(f"touch {canary}"), text(f"open({str(canary)!r}, 'w').close()")
    getattr_system = called("builtins", "getattr", called("builtins", "__import__", text("os")), text("system"))
    jump = called("builtins", "getattr", b"cos\nsystem\n", text("__call__"))
    return {
        "os.system": called("os", "system", shell),
        "posix.system": called("posix", "system", shell),
        "builtins.eval": called("builtins", "eval", write),
        "builtins.exec": called("builtins", "exec", write),
        "__builtin__.eval": called("__builtin__", "eval", write),
        "subprocess.call": by_stack("subprocess", "call", text("touch"), text(str(canary))),
        "subprocess.Popen as a new object": b"csubprocess\nPopen\n(" + shell + b"t\x81",
        "subprocess.Popen with keywords": b"csubprocess\nPopen\n)}" + text("args") + shell + b"s\x92",
        "stack of names": by_stack("os", "system", shell),
        "names from the memo": from_memo("os", "system", shell),
        "an instance": b"(" + shell + b"ios\nsystem\n",
        "an object": b"(cos\nsystem\n" + shell + b"o",
        "getattr": getattr_system + b"(" + shell + b"tR",
        "a method of a function": jump + b"(" + shell + b"tR",
        "a dotted name": by_stack("torch", "nn.modules.module.os.system", shell),
        "a dotted name of a harmless module": by_stack("torch.nn.modules", "module.sys.modules", shell),
        "operator.methodcaller": called("operator", "methodcaller", text("system"), shell),
        "functools.partial": called("functools", "partial", b"cos\nsystem\n", shell),
        "pathlib.Path.touch": by_stack("pathlib", "Path.touch", text(str(canary))),
        "builtins.open": called("builtins", "open", text(str(canary)), text("w")),
        "io.FileIO": called("io", "FileIO", text(str(canary)), text("w")),
        "shutil.copy": called("shutil", "copy", text("/etc/hostname"), text(str(canary))),
        "pip": called("pip", "main", b"](" + text("install") + text("evil") + b"e"),
        "pip internals": called("pip._internal", "main", b"](" + text("download") + b"e"),
        "runpy": called("runpy", "run_path", text(str(canary))),
        "importlib": called("importlib", "import_module", text("antigravity")),
        "torch.load": called("torch", "load", text(str(canary))),
        "torch.jit.load": called("torch.jit", "load", text(str(canary))),
        "torch.hub": called("torch.hub", "load", text("evil/evil"), text("net")),
        "torch.save": called("torch", "save", b"N", text(str(canary))),
        "torch.storage._load_from_bytes of a hostile file": called(
            "torch.storage", "_load_from_bytes", _bytes(called("os", "system", shell) + STOP)
        ),
        "payload within a payload": called(
            "torch.storage",
            "_load_from_bytes",
            _bytes(called("torch.storage", "_load_from_bytes", _bytes(called("os", "system", shell) + STOP)) + STOP),
        ),
        "numpy.load": called("numpy", "load", text(str(canary))),
        "numpy.testing": called("numpy.testing._private.utils", "runstring", write, b"}"),
        "numpy.f2py": called("numpy.f2py.crackfortran", "myeval", write),
        "pickle.loads": called("pickle", "loads", _bytes(called("os", "system", shell) + STOP)),
        "_pickle.loads": called("_pickle", "loads", _bytes(called("os", "system", shell) + STOP)),
        "copyreg": called("copyreg", "_reconstructor", b"cos\nsystem\n", b"cbuiltins\nobject\n", b"N"),
        "a state": b"cos\nsystem\n" + b"}" + text("__setstate__") + shell + b"sb",
        "a state of a table": b"}" + b"cos\nenviron\nb",
        "a parameter's hook": called(
            "torch._utils", "_rebuild_parameter", called("os", "system", shell), b"\x88", b"}"
        ),
        "a rebuild of any type": called(
            "torch._tensor", "_rebuild_from_type_v2", b"cos\nsystem\n", b"N", b"(" + shell + b"t", b"N"
        ),
        "weakref": called("weakref", "finalize", b"N", b"cos\nsystem\n", shell),
        "types.CodeType": called("types", "CodeType"),
        "marshal": called("marshal", "loads", _bytes(b"\x00")),
        "an extension": b"\x82\x01)R",
        "a persistent text": b"Pos.system\n",
        "a persistent call": called("os", "system", shell) + b"Q",
        "a persistent class": b"(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x01tQ",
        "ganvas itself": called("ganvas.files.files", "write_bytes", text(str(canary)), _bytes(b"x")),
        # memory and time
        "a tensor of absurd size": _tensor(b"(\x8a\x08" + struct.pack("<q", 1 << 40) + b"t", b"(K\x01t"),
        "a tensor of stride 0": _tensor(b"(J\xff\xff\xff\x7ft", b"(K\x00t"),
        "a tensor before its storage": _tensor(b"(K\x01t", b"(K\x01t", offset=b"J\xfe\xff\xff\xff"),
        "a huge text": b"\x8d" + struct.pack("<Q", 1 << 60) + b"abc",
        "huge bytes": b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc",
        "a huge whole number": b"\x8b\xff\xff\xff\x7f" + b"abc",
        "copies of copies": _copies(),
        "copies of texts": _copies_of_text(),
        "an array of absurd size": called("numpy", "zeros", b"J\xff\xff\xff\x7f"),
        "an array of objects": called(
            "numpy.core.multiarray", "scalar", called("numpy", "dtype", text("O8")), _bytes(b"x" * 8)
        ),
        "keys that collide": b"("
        + b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") for i in range(1, 999))
        + b"\x91",
        "a list as a key": b"}]Ns",
        "nothing on the stack": b"00000",
        "a mark without an end": b"((((",
        "a memo that was never filled": b"hz",
    }


def _bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def _tensor(shape: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    stored = io.BytesIO()
    torch.save(torch.zeros(2).untyped_storage(), stored, _use_new_zipfile_serialization=False)
    storage = called("torch.storage", "_load_from_bytes", _bytes(stored.getvalue()))
    ordered = called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, stride, b"\x89", ordered)


def _copies() -> bytes:
    """A list of 100,000, copied 5,000 times: 4 GB in a file of 300 kB."""
    return b"](" + b"N" * 100_000 + b"e\x940" + called("builtins", "list", b"h\x00") * 5000


def _copies_of_text() -> bytes:
    long = text("x" * 1_000_000)
    return long + b"\x940" + called("_codecs", "encode", b"h\x00", text("latin1")) * 2000


NAMES = list(attacks(Path("canary")))


def bare(payload: bytes) -> bytes:
    return b"\x80\x04" + payload + STOP


def zipped(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", bare(payload))
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(4))
    return buffer.getvalue()


def legacy(payload: bytes) -> bytes:
    machine = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(each, 2) for each in (MAGIC, PROTOCOL, machine))
    return head + bare(payload) + pickle.dumps([], 2)


def among_tensors(payload: bytes) -> bytes:
    """Beside a harmless table, and before it."""
    return bare(b"}(" + text("evil") + payload + text("state_dict") + b"}" + text("epoch") + b"K\x01u")


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "bare": bare, "zip": zipped, "legacy": legacy, "among tensors": among_tensors,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_refused(name: str, form: str, tmp_path: Path) -> None:
    canary, file = tmp_path / "canary", tmp_path / "evil.pt"
    file.write_bytes(FORMS[form](attacks(canary)[name]))
    begun = time.process_time()
    with pytest.raises(CheckpointError, match="it is refused") as caught:
        read_checkpoint(file)
    assert time.process_time() - begun < 5  # a bomb would take for ever
    assert caught.value.hint and str(file) in caught.value.where
    assert not canary.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """A usual unpickler runs them."""
    for name in ("os.system", "builtins.exec", "getattr", "names from the memo", "an instance", "pathlib.Path.touch"):
        canary = tmp_path / name.replace(" ", "-")
        payload = bare(attacks(canary)[name] if name != "pathlib.Path.touch" else _touch(canary))
        pickletools.dis(payload, out=io.StringIO())
        pickle.loads(payload)
        assert canary.exists(), name


def _touch(canary: Path) -> bytes:
    return by_stack("pathlib", "Path.touch", called("pathlib", "Path", text(str(canary))))


def test_the_name_is_told(tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    for name in ("os.system", "builtins.eval", "subprocess.call", "torch.hub", "pip"):
        file.write_bytes(bare(attacks(tmp_path / "canary")[name]))
        with pytest.raises(CheckpointError, match=name.split(" ")[0].replace(".", r"\.")):
            read_checkpoint(file)


class Reduced:
    """An object as Python's own pickle makes a hostile one."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_python_objects(form: str, tmp_path: Path) -> None:
    import os
    import subprocess

    canary, file = tmp_path / "canary", tmp_path / "evil.pt"
    for evil in (
        Reduced(os.system, f"touch {canary}"), Reduced(subprocess.getoutput, f"touch {canary}"),
        Reduced(eval, f"open({str(canary)!r}, 'w')"), Reduced(Path.touch, canary), Reduced(getattr, os, "system"),
    ):  # fmt: skip
        content = {"G_ema": {"w": torch.zeros(2)}, "D": evil}
        try:
            if form == "bare":
                file.write_bytes(pickle.dumps(content))
            else:
                torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
        except TypeError:  # a module cannot be pickled
            continue
        with pytest.raises(CheckpointError, match="was not run"):
            read_checkpoint(file)


# ---------------------------------------------------------------------------------------------------- every reader


@pytest.mark.parametrize("form", ["bare", "zip", "legacy"])
def test_no_command_runs_them(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`import`, `eval --against`, and weights of extractors."""
    canary, file = tmp_path / "canary", tmp_path / "evil.pt"
    images = tmp_path / "images.npz"
    np.savez(images, images=np.zeros((4, 8, 8, 3), np.uint8))
    for name, payload in attacks(canary).items():
        if name in ("copies of copies", "copies of texts"):  # torch.load's reader has no budget; it only takes long
            continue
        file.write_bytes(FORMS[form](payload))
        for words in (
            ["import", str(file), "--from", "stylegan2-ada", "--out", str(tmp_path / "out.safetensors")],
            ["eval", str(images), "--against", str(file)],
        ):
            capsys.readouterr()
            assert cli.run([*words, "--json"]) == 2, (name, words[0], capsys.readouterr().err)
            said = capsys.readouterr()
            assert "Traceback" not in said.err
            assert json.loads(said.out)["errors"][0]["hint"]
            assert not canary.exists(), (name, words[0])
        with pytest.raises(CheckpointError):
            read_state(file)
        assert not canary.exists(), name
    assert not (tmp_path / "out.safetensors").exists()


# ---------------------------------------------------------------------------------------------------- zip files


def test_zip_bombs(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bare(b"}"))
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(file)
    raw = bytearray(zipped(b"}"))
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 20 : at + 28] = struct.pack("<II", 1 << 30, 1 << 30)  # sizes in the directory
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match="larger than the whole"):
        read_checkpoint(file)


def test_storages_that_claim_more_than_there_is(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    reference = (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b"\x8a\x06\xff\xff\xff\xff\xff\x00tQ"
    )
    for form in (zipped, legacy):
        file.write_bytes(form(reference))
        with pytest.raises(CheckpointError, match="it is refused"):
            read_checkpoint(file)
