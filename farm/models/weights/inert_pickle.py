"""What a pickle would make, without making it. Nothing is imported or called; only text and small numbers are hashed.

pickletools takes the pickle apart, and a stack machine puts together what it would make. Containers, numbers and text
are themselves; whatever has a class or comes from a function is an `Inert`, which remembers its name and what it was
given.

A pickle.Unpickler with another `find_class` would be shorter, and is not enough: it hashes every key of a dict. A tuple
in a tuple, two million times (2 MB), ends the process with a segmentation fault; one that doubles a hundred times (200
bytes) is hashed for ever. The tests have both.
"""

from __future__ import annotations

import pickletools
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MOST_STEPS = 4_000_000  # of the stack machine, some seconds; yolo11n takes 35,000
MOST_CLASSES = 1 << 20  # a larger number as a key is no class
ORDERED = "collections.OrderedDict"
BROKEN = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, struct.error,
          zlib.error)  # fmt: skip


@dataclass(slots=True, eq=False)
class Inert:
    """Stands for an object of a class, or for what a function would have returned. Never more than a name."""

    name: str  # module.attribute
    arguments: Any = ()
    state: Any = None

    @property
    def modules(self) -> Mapping[str, Any] | None:
        """The children of a torch.nn.Module by name; None where it is none."""
        children = self.state.get("_modules") if isinstance(self.state, dict) else None
        return children if isinstance(children, dict) else None

    @property
    def is_tensor(self) -> bool:
        """Tensors and parameters are what some functions of torch rebuild."""
        return self.name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))


_MARK = object()


@dataclass(slots=True)
class PickleMachine:
    """Runs pickles one after the other. Raises one of BROKEN where a pickle is damaged, or longer than it may be."""

    names: set[str] = field(default_factory=set)
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    steps: int = 0

    def run(self, data: BinaryIO) -> Any:
        """The object of the next pickle."""
        self.stack, self.memo = [], {}
        for opcode, argument, _ in pickletools.genops(data):
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise ValueError("too long")
            if opcode.name in PUSHED:
                self.stack.append(argument)
            elif opcode.name in ACTIONS:
                ACTIONS[opcode.name](self, argument)
            else:
                raise ValueError(f"unexpected {opcode.name}")
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        """Everything above the newest mark, which goes too."""
        above = []
        while (item := self.stack.pop()) is not _MARK:
            above.append(item)
        above.reverse()
        return above

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def make_tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Text is a key, and a number that a class may have: others would have to be hashed, which can be made to take
        for ever, and nothing that is asked for is called by them.
        """
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if _is_key(key))

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def find(self, module: str, name: str) -> None:
        self.names.add(f"{module}.{name}")
        self.stack.append(Inert(f"{module}.{name}"))

    def find_on_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name that is no text")
        self.find(module, name)

    def call(self, function: Any, arguments: Any) -> None:
        """What calling or instantiating would give."""
        if not isinstance(function, Inert):
            raise ValueError("a call of what is no function")
        ordered = function.name == ORDERED and arguments == ()
        self.stack.append({} if ordered else Inert(function.name, arguments))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.call(function, arguments)

    def new_with_keywords(self) -> None:
        self.stack.pop()
        self.reduce()

    def instantiate(self) -> None:
        cls, *arguments = self.to_mark()
        self.call(cls, tuple(arguments))

    def instantiate_named(self, name: str) -> None:
        arguments = tuple(self.to_mark())
        self.find(*name.split(" ", 1))
        self.call(self.stack.pop(), arguments)

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(state, tuple) and state and isinstance(state[0], dict):
            state = state[0]  # beside the values of slots
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def persistent(self, identifier: Any) -> None:
        """A tensor's values, which lie elsewhere in the file; or, before 1.6, a class beside its source."""
        is_class = isinstance(identifier, tuple) and identifier[:1] == ("module",)
        self.stack.append(identifier[1] if is_class else Inert("", identifier))


def _is_key(key: Any) -> bool:
    return isinstance(key, str) or (type(key) is int and 0 <= key < MOST_CLASSES)


NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
PUSHED = frozenset((*NUMBERS, *TEXTS, *BYTES))  # opcodes that push their argument
ACTIONS: dict[str, Callable[[PickleMachine, Any], Any]] = {  # of the others
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, number: machine.put(number)),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, number: machine.stack.append(machine.memo[number])
    ),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.to_mark())),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.stack.append([])),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.stack.append(machine.to_mark())),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.to_mark())),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": lambda machine, _: machine.make_dict(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "GLOBAL": lambda machine, name: machine.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find_on_stack(),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.reduce()),
    "NEWOBJ_EX": lambda machine, _: machine.new_with_keywords(),
    "OBJ": lambda machine, _: machine.instantiate(),
    "INST": lambda machine, name: machine.instantiate_named(name),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, identifier: machine.persistent(identifier),
    "BINPERSID": lambda machine, _: machine.persistent(machine.stack.pop()),
}
