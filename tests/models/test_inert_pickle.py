from __future__ import annotations

import pickle
import shlex
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.inert_pickle import Global, InertPickleError, Record, loads
from tests.models.torch_files import Call, Name, Raw, opcodes, pickled


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -5,
        1 << 70,
        1.5,
        "",
        "né",
        b"\0\xff",
        (),
        (1,),
        (1, 2, 3, 4),
        [],
        [1, [2]],
        {},
        {"a": {1: None}},
    ],
    ids=repr,
)
def test_plain_values_come_back_as_they_were_at_every_protocol(value: Any, protocol: int) -> None:
    read = loads(pickle.dumps(value, protocol))
    if isinstance(value, bytes) and protocol == 2:  # written as a call of _codecs.encode
        assert isinstance(read, Record)
    else:
        assert read == value


def test_values_that_appear_twice_are_the_same_object() -> None:
    shared = ["x"]
    result = loads(pickle.dumps([shared, shared]))
    assert result[0] is result[1]


def test_ordered_dicts_and_sets_become_plain() -> None:
    assert loads(pickle.dumps([OrderedDict(b=1, a=2), {3}], 2)) == [{"b": 1, "a": 2}, [3]]


def test_an_instance_is_a_record_of_its_class_arguments_and_state() -> None:
    made = loads(pickled(Call(Name("torch.nn.modules.conv", "Conv2d"), (1,), {"groups": 2})))
    assert isinstance(made, Record)
    assert (made.name, made.args, made.state) == ("torch.nn.modules.conv.Conv2d", (1,), {"groups": 2})


def test_the_one_function_that_old_checkpoints_keep_is_a_record() -> None:
    head = Name("ultralytics.nn.modules.head", "Detect")
    made = loads(pickled(Call(Name("__builtin__", "getattr"), (head, "forward"))))
    assert isinstance(made, Record)
    assert made.args == (Global("ultralytics.nn.modules.head.Detect"), "forward")


def _stack_global(module: str, name: str) -> Raw:
    return Raw(opcodes(module) + opcodes(name) + b"\x93")


_TOUCH: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "os.system": ("os.system", lambda cmd: pickled(Call(Name("os", "system"), (cmd,)))),
    "posix.system": ("posix.system", lambda cmd: pickled(Call(Name("posix", "system"), (cmd,)))),
    "subprocess": (
        "subprocess.check_output",
        lambda cmd: pickled(Call(Name("subprocess", "check_output"), (shlex.split(cmd),))),
    ),
    "eval": (
        "builtins.eval",
        lambda cmd: pickled(Call(Name("__builtin__", "eval"), (f"__import__('os').system({cmd!r})",))),
    ),
    "exec": (
        "builtins.exec",
        lambda cmd: pickled(Call(Name("builtins", "exec"), (f"__import__('os').system({cmd!r})",))),
    ),
    "nested in the state of a layer": (
        "os.system",
        lambda cmd: pickled(
            {
                "model": Call(
                    Name("torch.nn.modules.conv", "Conv2d"), (), {"x": [Call(Name("os", "system"), (cmd,))]}
                )
            }
        ),
    ),
    "as a dict key": (
        "os.system",
        lambda cmd: b"\x80\x02}" + opcodes(Call(Name("os", "system"), (cmd,))) + b"K\1s.",
    ),
    "getattr": (
        "builtins.__import__",
        lambda cmd: pickled(
            Call(
                Call(Name("builtins", "getattr"), (Call(Name("builtins", "__import__"), ("os",)), "system")),
                (cmd,),
            )
        ),
    ),
    "getattr on an allowed global": (
        "builtins.getattr",
        lambda cmd: pickled(
            Call(Call(Name("builtins", "getattr"), (Name("ultralytics.utils", "os"), "system")), (cmd,))
        ),
    ),
    "dunder of the allowed function": (
        "builtins.getattr",
        lambda cmd: pickled(
            Call(Name("builtins", "getattr"), (Name("ultralytics.nn.modules.head", "Detect"), "__globals__"))
        ),
    ),
    "STACK_GLOBAL": (
        "os.system",
        lambda cmd: b"\x80\x04" + opcodes(Call(_stack_global("os", "system"), (cmd,))) + b".",
    ),
    "STACK_GLOBAL with a dotted name": (
        "torch.nn.modules.os.system",
        lambda cmd: (
            b"\x80\x04" + opcodes(Call(_stack_global("torch.nn", "modules.os.system"), (cmd,))) + b"."
        ),
    ),
    "STACK_GLOBAL with a line break": (
        "torch.nn",
        lambda cmd: b"\x80\x04" + opcodes(Call(_stack_global("torch.nn\nos", "system"), (cmd,))) + b".",
    ),
    "STACK_GLOBAL with a look-alike letter": (
        "t\\u043erch.nn",
        lambda cmd: b"\x80\x04" + opcodes(Call(_stack_global("tоrch.nn", "system"), (cmd,))) + b".",
    ),
    "INST": ("os.system", lambda cmd: b"(S" + repr(cmd).encode() + b"\nios\nsystem\n."),
    "OBJ": ("os.system", lambda cmd: b"(cos\nsystem\n" + opcodes(cmd) + b"o."),
    "copyreg": (
        "copyreg._reconstructor",
        lambda cmd: pickled(Call(Name("copy_reg", "_reconstructor"), (Name("os", "system"), cmd))),
    ),
    "copyreg extension": ("EXT1", lambda cmd: b"\x80\x02\x82\x01" + opcodes((cmd,)) + b"R."),
    "functools.partial": (
        "functools.partial",
        lambda cmd: pickled(Call(Call(Name("functools", "partial"), (Name("os", "system"), cmd)), ())),
    ),
    "torch.hub": ("torch.hub.load", lambda cmd: pickled(Call(Name("torch.hub", "load"), (cmd,)))),
    "YOLOv5": (
        "models.yolo.Model",
        lambda cmd: pickled(Call(Name("models.yolo", "Model"), (), {"cmd": cmd})),
    ),
}


@pytest.mark.parametrize(("named", "make"), _TOUCH.values(), ids=_TOUCH.keys())
def test_a_pickle_that_could_run_code_is_refused_by_name_and_runs_nothing(
    named: str, make: Callable[[str], bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "it-ran"
    with pytest.raises(InertPickleError) as refused:
        loads(make(f"touch {marker}"))
    assert named in str(refused.value)
    assert not marker.exists()


def test_the_attack_of_these_tests_is_a_real_one(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    pickle.loads(_TOUCH["os.system"][1](f"touch {marker}"))  # noqa: S301  # the point of this test
    assert marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02N",
        b"\x80\x02NN.",
        b"\x80\x02h\x07.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01K\x02K\x03s.",
        b"\x80\x02t.",
        b"\x80\x02R.",
        b"\x80\x02K\x01\x86.",
        b"\x80\x02NNR.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"L" + b"9" * 5000 + b"L\n.",
        b"\x80\x02}((tK\x01s.",
        b"\x80\x02]]\x93.",
        b"not a pickle at all",
    ],
    ids=repr,
)
def test_a_damaged_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(InertPickleError):
        loads(data)


def test_a_memo_index_of_four_billion_costs_nothing() -> None:
    assert loads(b"\x80\x02K\x05r\xff\xff\xff\xff.") == 5


def test_a_nest_of_shared_tuples_is_refused_as_a_key_rather_than_hashed() -> None:
    nest = b"K\x01" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(100))
    with pytest.raises(InertPickleError, match="key"):
        loads(b"\x80\x02}" + nest + b"Ns.")


def test_random_bytes_are_refused_or_read_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    known = b"().NRbcehijqrstu}]\x80\x81\x85\x86\x87\x88\x89\x8a\x93\x94KJXG0"
    for _ in range(3000):
        body = bytes(random.choice(np.frombuffer(known, np.uint8), random.integers(1, 30)))
        try:
            loads(b"\x80\x02" + body + struct.pack("<I", 2) + b"ab.")
        except InertPickleError:
            continue
