"""Read a pickle as data only: no class is imported, no function is called, whatever the file says.

`pickle.Unpickler` can be narrowed by `find_class`, but it still calls what it finds. This reader is a small
stack machine over `pickletools.genops` (which only decodes opcodes) and has nothing to call: a class or
function in the file becomes a `Global`, an instance or the result of a call a `Record` that keeps name,
arguments and state. A file that names a global outside `is_allowed` is refused whole: no checkpoint needs it.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_PICKLE_BYTES = 64 << 20  # YOLO11n-pose: 0.3 MB, of which training curves are the most
MAX_OPCODES = 1_000_000  # YOLO11n-pose: 80 000; each may make an object of some 100 bytes


class InertPickleError(ValueError):
    """The pickle is damaged, uses what no checkpoint uses, or names a global that is not allowed."""


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names, as text. Nothing is imported."""

    name: str


@dataclass(eq=False)
class Record:
    """An instance, or the result of a call, that was not made: what it is called, and what it was given."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class PersistentId:
    """A reference to something outside the pickle; in a checkpoint, to a tensor's storage."""

    value: Any


_ALLOWED_PREFIXES = ("ultralytics.", "torch.nn.")
_TORCH_TYPES = ("Size", "device", "dtype", "float16", "bfloat16", "float32", "float64", "int32", "int64")
_TORCH_STORAGES = ("BFloat16", "Half", "Float", "Double", "Bool", "Byte", "Char", "Short", "Int", "Long")
_PLAIN = ("object", "set", "frozenset", "slice", "list", "dict", "tuple", "bytearray", "complex", "range")
_ALLOWED_NAMES: dict[str, tuple[str, ...]] = {
    "torch": (*_TORCH_TYPES, *(f"{kind}Storage" for kind in _TORCH_STORAGES)),
    "torch._utils": (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
    ),
    "torch.torch_version": ("TorchVersion",),
    # Ultralytics 8.0–8.2 keep the function `Detect.forward` in the head, as getattr(Detect, "forward");
    # `_reduce` refuses every other use of getattr.
    "builtins": (*_PLAIN, "getattr"),
    "collections": ("OrderedDict", "defaultdict", "deque", "Counter"),
    "numpy": ("dtype", "ndarray", "float64", "float32", "int64", "bool_"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath"),
    "datetime": ("datetime", "date", "timedelta", "timezone"),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "_codecs": ("encode",),
}
_ALLOWED = frozenset(f"{module}.{name}" for module, names in _ALLOWED_NAMES.items() for name in names)
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def is_allowed(name: str) -> bool:
    """Say whether a pose checkpoint may name this global, such as `torch.nn.modules.conv.Conv2d`."""
    return name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)


def loads(data: bytes) -> Any:
    """Read one pickle.

    Returns:
        Plain values, lists, tuples and dicts (a set is a list, an OrderedDict a dict), and `Global`, `Record`
        and `PersistentId` for the rest.

    Raises:
        InertPickleError: the pickle is damaged or not allowed; the message names the global.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise InertPickleError(f"its pickle has {len(data)} bytes, more than {MAX_PICKLE_BYTES}")
    machine = _Machine()
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise InertPickleError(f"its pickle has more than {MAX_OPCODES} opcodes")
            machine.step(opcode.name, arg)
    except InertPickleError:
        raise
    except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, Warning) as exc:
        raise InertPickleError(f"its pickle is damaged ({exc})") from exc
    if len(machine.stack) != 1:
        raise InertPickleError("its pickle is damaged (it does not end in one object)")
    return machine.stack[0]


class _Machine:
    """Stack, marks and memo of a pickle under way; a method per opcode that does more than push."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, arg: Any) -> None:
        if opcode in _PUSH:
            self.stack.append(arg)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, arg)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise InertPickleError(f"its pickle uses {opcode}, which no checkpoint uses")

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def short_tuple(self, size: int) -> None:
        items = self.stack[-size:]
        if len(items) != size:
            raise InertPickleError("its pickle is damaged (stack underflow)")
        self.stack[-size:] = [tuple(items)]

    def mark_tuple(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def mark_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def mark_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set_items(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self, _: Any) -> None:
        self._extend(self.pop_mark())

    def set_item(self, _: Any) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self._set_items(items)

    def set_items(self, _: Any) -> None:
        self._set_items(self.pop_mark())

    def global_(self, arg: Any) -> None:
        module, _, name = str(arg).partition(" ")
        self.stack.append(_global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_global(module, name))

    def inst(self, arg: Any) -> None:
        module, _, name = str(arg).partition(" ")
        items = self.pop_mark()
        self.stack.append(Record(_global(module, name).name, tuple(items)))

    def obj(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(_reduce(items[0], tuple(items[1:])))

    def reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_reduce(function, args))

    def new_object_ex(self, _: Any) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(_reduce(cls, (*args, kwargs)))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state

    def persistent_id(self, _: Any) -> None:
        self.stack.append(PersistentId(self.stack.pop()))

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Record) else target).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(items)
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only plain keys: the hash of a nest of shared tuples takes exponential time.
            if not isinstance(key, str | int | float | bytes | None):
                raise InertPickleError("its pickle has a dict with a key that is not a plain value")
            target[key] = value


def _global(module: Any, name: Any) -> Global:
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    full = f"{module}.{name}"
    if not (isinstance(module, str) and isinstance(name, str)):
        raise InertPickleError("its pickle is damaged (a global without a name)")
    if not _MODULE.fullmatch(module) or not _NAME.fullmatch(name) or not is_allowed(full):
        raise InertPickleError(f"it names {full!a}, which no pose checkpoint needs and which could run code")
    return Global(full)


def _reduce(function: Any, args: Any) -> Any:
    if not isinstance(function, Global) or not isinstance(args, tuple):
        raise InertPickleError("its pickle calls what is not a class or function")
    if function.name == "builtins.getattr" and not _is_detect_forward(args):
        raise InertPickleError("it names 'builtins.getattr', which no pose checkpoint needs here")
    if function.name == "collections.OrderedDict" and not args:
        return {}
    if function.name in ("builtins.set", "builtins.list", "torch.Size") and len(args) == 1:
        return list(args[0])
    return Record(function.name, args)


def _is_detect_forward(args: tuple[Any, ...]) -> bool:
    return (
        len(args) == 2
        and isinstance(args[0], Global)
        and args[0].name == "ultralytics.nn.modules.head.Detect"
        and args[1] == "forward"
    )


_PUSH = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.pop_mark().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": _Machine.mark_tuple,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "LIST": _Machine.mark_list,
    "DICT": _Machine.mark_dict,
    "FROZENSET": _Machine.mark_list,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_ex,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
