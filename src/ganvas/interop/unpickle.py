"""Pickles of other code bases, read without running anything that is in them.

A pickle is a program: it names functions, and whoever loads it calls them. This is an interpreter of our own for that
program. Nothing is imported by name: a name either stands for one of the few functions of `inert`, which rebuild
tensors, arrays and plain containers, or for a class whose objects become inert `Record`s, or the file is refused.
Source code that travels along (NVIDIA's `torch_utils.persistence`) is skipped.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from ganvas.interop.inert import (
    BUILDERS,
    DTYPES,
    STORAGES,
    Array,
    Budget,
    DTypeRecord,
    Name,
    Record,
    Refused,
    Storage,
    TensorView,
    fill_array,
    keys_of,
    pairs_of,
)

MOST_INSTRUCTIONS = 2_000_000  # a file with a thousand tensors has a hundred thousand

# Modules whose classes become records. They are never imported, so that it does not matter what they are.
INERT = ("torch.nn.", "dnnlib.", "torch_utils.", "training.", "R3GAN.")
INERT_NAMES = ("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device")


class Interpreter:
    """Runs the instructions of one pickle on a stack of inert things.

    Parameters
    ----------
    inert : beginnings of names whose objects become records.
    budget : how much may be copied.
    payload : reads a file within the file.
    storage : what a persistent id refers to; None where none is expected.
    """

    def __init__(
        self,
        inert: Sequence[str],
        budget: Budget,
        payload: Callable[[memoryview], Any],
        storage: Callable[[Any], Storage] | None = None,
    ) -> None:
        self.inert = tuple(inert)
        self.spend = budget.spend
        self.payload = payload
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The object that the pickle at the stream's place makes.

        Raises
        ------
        Refused : it is no pickle, damaged, or asks for anything that is not known.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count > MOST_INSTRUCTIONS:
                    raise Refused(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
                if opcode.name == "STOP":
                    if len(self.stack) != 1 or self.marks:
                        raise Refused("it is damaged: it ends in the midst of something")
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except Refused:
            raise
        except (
            ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, struct.error, RecursionError,
            UnicodeError, MemoryError,
        ) as error:  # fmt: skip
            said = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
            raise Refused(f"it is no checkpoint, damaged or cut short ({said})") from None
        raise Refused("it is cut short")

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _PUSH:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode]())
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif opcode in ("PROTO", "FRAME"):
            pass
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        else:
            raise Refused(f"it uses the instruction {opcode}, which no checkpoint needs")

    def to_mark(self) -> list[Any]:
        """Everything above the last mark, which goes away."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # ------------------------------------------------------------------ names and calls

    def named(self, module: Any, name: Any) -> Any:
        """What a name stands for: a number type, or itself where it may be called.

        Raises
        ------
        Refused : anything else, whatever it is.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it names something by what is no text")
        qualified = Name(module, name)
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return qualified
        if str(qualified) in BUILDERS or self.becomes_record(qualified):
            return qualified
        if module.startswith("dnnlib.tflib"):
            raise Refused(
                f"it asks for {module}.{name}: it is a StyleGAN of TensorFlow's time; NVIDIA publish the same weights "
                "as PyTorch pickles, and their legacy.py turns old files into new ones"
            )
        raise Refused(f"it asks for {str(qualified)[:120]}, which has no place in a checkpoint and was not run")

    def becomes_record(self, name: Name) -> bool:
        text = str(name)
        if name.module.startswith("dnnlib.tflib") or "." in name.name:  # an attribute of a class, not a class
            return False
        return text in INERT_NAMES or text.startswith(self.inert)

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call makes: one of our own builders runs, or a record stands for it."""
        if not isinstance(arguments, tuple):
            raise Refused("it calls something with what are no arguments")
        if isinstance(function, Record) and function.cls.startswith(self.inert):
            return Record(f"{function.cls}()", arguments)
        if not isinstance(function, Name):
            raise Refused("it calls something that is no function")
        builder = BUILDERS.get(str(function))
        if builder is not None:
            return builder(self, *arguments)
        if self.becomes_record(function):
            return Record(str(function), arguments)
        raise Refused(f"it calls {str(function)[:120]}, which has no place in a checkpoint and was not run")

    # ------------------------------------------------------------------ instructions

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.named(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    def new_with_keywords(self, _: Any) -> None:
        keywords, arguments, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if keywords:
            raise Refused("it makes an object with keywords, which no checkpoint needs")
        self.stack.append(self.call(cls, arguments))

    def instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        arguments = tuple(self.to_mark())
        self.stack.append(self.call(self.named(module, name), arguments))

    def object(self, _: Any) -> None:
        cls, *arguments = self.to_mark()
        self.stack.append(self.call(cls, tuple(arguments)))

    def persistent_text(self, argument: str) -> None:
        raise Refused("it refers to something outside itself by a text")

    def persistent(self, _: Any) -> None:
        identity = self.stack.pop()
        if self.storage is None:
            raise Refused("it refers to something outside itself")
        self.stack.append(self.storage(identity))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            parts = state if isinstance(state, tuple) else (state,)  # (attributes, slots)
            for part in parts:
                if isinstance(part, dict):
                    self.spend(len(part))
                    target.state.update(part)
        elif isinstance(target, Array):
            fill_array(self, target, state)
        elif isinstance(target, DTypeRecord):
            target.order(state)
        elif not isinstance(target, dict | TensorView):  # attributes of tables and tensors are left out
            raise Refused("it gives a state to something that has none")

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        self.extend([value])

    def appends(self, _: Any) -> None:
        self.extend(self.to_mark())

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Record):
            raise Refused("it appends to something that is no list")

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def set_items(self, _: Any) -> None:
        self.update(self.to_mark())

    def update(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):
            return
        if not isinstance(target, dict):
            raise Refused("it sets items of something that is no table")
        target.update(_table_of(flat))

    def add_items(self, _: Any) -> None:
        values = self.to_mark()
        if not isinstance(self.stack[-1], set):
            raise Refused("it adds to something that is no set")
        self.stack[-1].update(keys_of(values))


_PUSH = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


def _table_of(flat: list[Any]) -> dict[Any, Any]:
    """key, value, key, value, ... -> a table."""
    return pairs_of(list(zip(flat[::2], flat[1::2], strict=True)))


def _collected(make: Callable[[list[Any]], Any] | None) -> Callable[[Interpreter, Any], None]:
    """Everything above the last mark becomes one thing, or nothing."""

    def collect(interpreter: Interpreter, _: Any) -> None:
        items = interpreter.to_mark()
        if make is not None:
            interpreter.stack.append(make(items))

    return collect


def _tuple_of(count: int) -> Callable[[Interpreter, Any], None]:
    def make(interpreter: Interpreter, _: Any) -> None:
        if len(interpreter.stack) < count:
            raise Refused("it is damaged: something is missing")
        items = tuple(interpreter.stack[-count:])
        del interpreter.stack[-count:]
        interpreter.stack.append(items)

    return make


_STEPS: dict[str, Callable[[Interpreter, Any], None]] = {
    "POP": Interpreter.pop,
    "POP_MARK": _collected(None),
    "DUP": lambda self, _: self.stack.append(self.stack[-1]),
    "TUPLE": _collected(tuple),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _collected(list),
    "DICT": _collected(_table_of),
    "FROZENSET": _collected(lambda values: frozenset(keys_of(values))),
    "APPEND": Interpreter.append,
    "APPENDS": Interpreter.appends,
    "SETITEM": Interpreter.set_item,
    "SETITEMS": Interpreter.set_items,
    "ADDITEMS": Interpreter.add_items,
    "GLOBAL": Interpreter.global_,
    "STACK_GLOBAL": Interpreter.stack_global,
    "REDUCE": Interpreter.reduce,
    "NEWOBJ": Interpreter.reduce,
    "NEWOBJ_EX": Interpreter.new_with_keywords,
    "INST": Interpreter.instance,
    "OBJ": Interpreter.object,
    "PERSID": Interpreter.persistent_text,
    "BINPERSID": Interpreter.persistent,
    "BUILD": Interpreter.build,
}
