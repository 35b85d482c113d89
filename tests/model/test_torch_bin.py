"""PyTorch .bin files: written here by Python's own pickle and zipfile without PyTorch, right and hostile.

Python's pickler writes the names of the classes that stand in for PyTorch's below, so the pickles are those of
torch.save. A hostile pickle would, when run, make a file (the marker); after every refusal the marker must not be there.

LANNER_CHECKPOINT_PROBE names the program built from tests/model/checkpoint_probe.cpp. Tests marked `peer` need PyTorch
itself and run with -m peer.
"""

import collections
import io
import json
import os
import pickle
import pickletools
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
from checkpoint_reader import Probe, probe_refusal

TYPES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
# Every instruction that a dict of tensors is made of; all others must be refused by their names.
NEEDED = set(
    "PROTO STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE BINPUT LONG_BINPUT BINGET LONG_BINGET"
    " MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS GLOBAL BINPERSID REDUCE BUILD".split()
)


@pytest.fixture(autouse=True)
def stand_ins(request):
    """Modules torch and torch._utils whose functions bear the right names; nothing of them is ever called."""
    if request.node.get_closest_marker("peer"):
        yield
        return
    names = ("torch", "torch._utils")
    before = {name: sys.modules.get(name) for name in names}
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for storage in TYPES.values():
        setattr(torch, storage, type(storage, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__qualname__, function.__module__ = name, "torch._utils"
        setattr(utils, name, function)
    torch._utils = utils
    sys.modules.update({"torch": torch, "torch._utils": utils})
    yield
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


class Storage:
    """The elements of one or several tensors."""

    def __init__(self, kind, data):
        self.kind = kind
        self.data = data
        self.key = None


class Tensor:
    def __init__(self, storage, offset, shape, strides, parameter=False):
        self.storage = storage
        self.arguments = (offset, tuple(shape), tuple(strides))
        self.parameter = parameter

    def __reduce__(self):
        utils = sys.modules["torch._utils"]
        arguments = (self.storage, *self.arguments, False, collections.OrderedDict())
        if self.parameter:
            inner = Tensor(self.storage, *self.arguments)
            return utils._rebuild_parameter, (inner, True, collections.OrderedDict())
        return utils._rebuild_tensor_v2, arguments


class TorchPickler(pickle.Pickler):
    """Gives each storage a key, and says of it what torch.save says."""

    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.storages = []

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj.key is None:
            obj.key = str(len(self.storages))
            self.storages.append(obj)
        kind = getattr(sys.modules["torch"], TYPES[obj.kind])
        element = {"F32": 4, "F16": 2, "BF16": 2}[obj.kind]
        return ("storage", kind, obj.key, "cpu", len(obj.data) // element)


def write_archive(path, pickled, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.writestr("model/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)
        archive.writestr("model/version", "3\n")


def save(path, tensors, protocol=2):
    file = io.BytesIO()
    pickler = TorchPickler(file, protocol)
    pickler.dump(collections.OrderedDict(tensors))
    write_archive(path, file.getvalue(), {storage.key: storage.data for storage in pickler.storages})


def write_config(folder):
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")


def contiguous(array, kind, parameter=False):
    strides = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    return Tensor(Storage(kind, array.tobytes()), 0, array.shape, strides, parameter)


def bfloat16(array):
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def random_tensors():
    rng = np.random.default_rng(1)
    single = rng.standard_normal((5, 7)).astype(np.float32)
    half = rng.standard_normal((3, 64)).astype(np.float16)
    brain = bfloat16(rng.standard_normal((4, 4)).astype(np.float32))
    vector = rng.standard_normal(9).astype(np.float32)
    shared = Storage("F16", half.tobytes())
    tensors = {
        "f32": contiguous(single, "F32"),
        "bf16": contiguous(brain, "BF16", parameter=True),
        "vector": contiguous(vector, "F32"),
        "whole": Tensor(shared, 0, (3, 64), (64, 1)),
        "row": Tensor(shared, 64, (1, 64), (64, 1)),
        "part": Tensor(shared, 100, (2, 3), (3, 1)),
    }
    expected = {
        "f32": single,
        "bf16": widened(brain),
        "vector": vector,
        "whole": half.astype(np.float32),
        "row": half[1:2].astype(np.float32),
        "part": half.reshape(-1)[100:106].reshape(2, 3).astype(np.float32),
    }
    return tensors, expected


def assert_equal(folder, expected):
    with Probe(folder) as probe:
        for name, wanted in expected.items():
            values, _ = probe.tensor(name, wanted.shape)
            assert (values == wanted).all(), name


def test_reads_what_torch_save_writes(tmp_path):
    tensors, expected = random_tensors()
    write_config(tmp_path)
    save(tmp_path / "pytorch_model.bin", tensors)
    assert_equal(tmp_path, expected)


def test_reads_shards(tmp_path):
    tensors, expected = random_tensors()
    write_config(tmp_path)
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[:2], names[2:]), 1):
        shard = f"pytorch_model-0000{number}-of-00002.bin"
        save(tmp_path / shard, {name: tensors[name] for name in part})
        weight_map.update(dict.fromkeys(part, shard))
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert_equal(tmp_path, expected)


def test_reads_a_state_dict_with_metadata(tmp_path):
    class StateDict(collections.OrderedDict):
        def __reduce__(self):
            metadata = collections.OrderedDict({"": {"version": 1}})
            return collections.OrderedDict, (), {"_metadata": metadata}, None, iter(self.items())

    tensors, expected = random_tensors()
    file = io.BytesIO()
    pickler = TorchPickler(file, 2)
    pickler.dump(StateDict(tensors))
    assert "BUILD" in {opcode.name for opcode, _, _ in pickletools.genops(file.getvalue())}
    write_config(tmp_path)
    storages = {storage.key: storage.data for storage in pickler.storages}
    write_archive(tmp_path / "pytorch_model.bin", file.getvalue(), storages)
    assert_equal(tmp_path, expected)


def test_refuses_transposed_tensors_and_compressed_archives(tmp_path):
    write_config(tmp_path)
    array = np.arange(6, dtype=np.float32)
    save(tmp_path / "pytorch_model.bin", {"turned": Tensor(Storage("F32", array.tobytes()), 0, (2, 3), (1, 2))})
    assert "turned: its strides (1, 2)" in probe_refusal(tmp_path)
    write_archive(tmp_path / "pytorch_model.bin", b"\x80\x02}.", {"0": b"abcd" * 100}, zipfile.ZIP_DEFLATED)
    assert "is compressed" in probe_refusal(tmp_path)


class Attack:
    """What a pickle of PyTorch files was abused for: a call that makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "value", "key"])
def test_an_attack_is_refused_and_not_run(tmp_path, place, protocol):
    marker = tmp_path / "marker"
    attack = Attack(marker)
    content = {"whole": attack, "value": {"a": attack}, "key": {attack: "a"}}[place]
    pickled = pickle.dumps(content, protocol)
    write_config(tmp_path)
    write_archive(tmp_path / "pytorch_model.bin", pickled, {})
    refusal = probe_refusal(tmp_path)
    assert "unsupported" in refusal and "pickle instruction" in refusal, refusal
    assert not marker.exists()
    pickle.loads(pickled)  # the attack is a real one
    assert marker.exists()


# One pickle for each instruction that Python has and a dict of tensors does not need: its operand as the
# instruction wants it, behind values that it would find on the stack.
OPERANDS = {
    "INT": b"1\n",
    "LONG": b"1L\n",
    "LONG4": struct.pack("<i", 1) + b"\x01",
    "STRING": b"'os'\n",
    "BINSTRING": struct.pack("<i", 2) + b"os",
    "SHORT_BINSTRING": b"\x02os",
    "BINBYTES": struct.pack("<I", 2) + b"os",
    "SHORT_BINBYTES": b"\x02os",
    "BINBYTES8": struct.pack("<Q", 2) + b"os",
    "BYTEARRAY8": struct.pack("<Q", 2) + b"os",
    "UNICODE": b"os\n",
    "SHORT_BINUNICODE": b"\x02os",
    "BINUNICODE8": struct.pack("<Q", 2) + b"os",
    "FLOAT": b"1.5\n",
    "BINFLOAT": struct.pack(">d", 1.5),
    "GET": b"0\n",
    "PUT": b"0\n",
    "EXT1": b"\x01",
    "EXT2": b"\x01\x00",
    "EXT4": b"\x01\x00\x00\x00",
    "INST": b"os\nsystem\n",
    "FRAME": struct.pack("<Q", 1),
    "PERSID": b"0\n",
}


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_other_instruction_is_refused_by_name(tmp_path, opcode):
    if opcode.name in NEEDED:
        assert opcode.proto <= 2
        return
    text = b"X" + struct.pack("<I", 2)
    pickled = b"\x80\x02(" + text + b"os" + text + b"id" + b")" + opcode.code.encode("latin-1")
    pickled += OPERANDS.get(opcode.name, b"") + b"."
    write_config(tmp_path)
    write_archive(tmp_path / "pytorch_model.bin", pickled, {})
    refusal = probe_refusal(tmp_path)
    assert "unsupported" in refusal and f"pickle instruction {opcode.name} at byte" in refusal, refusal


@pytest.mark.parametrize(
    "module,name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("runpy", "_run_code"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.serialization", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("collections", "namedtuple"),
    ],
)
def test_every_other_name_is_refused(tmp_path, module, name):
    pickled = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."
    write_config(tmp_path)
    write_archive(tmp_path / "pytorch_model.bin", pickled, {})
    refusal = probe_refusal(tmp_path)
    assert f"pickle instruction GLOBAL at byte 2: {module}.{name} is not a name" in refusal, refusal


def test_calls_of_known_names_with_other_arguments_are_refused(tmp_path):
    write_config(tmp_path)
    ordered = b"ccollections\nOrderedDict\n"
    for arguments in (b"(}t", b"(((NNttt", b"N", b"}"):
        write_archive(tmp_path / "pytorch_model.bin", b"\x80\x02" + ordered + arguments + b"R.", {})
        assert "pickle instruction REDUCE" in probe_refusal(tmp_path)
    for pickled, name in ((b"}}b.", "BUILD"), (b")Q.", "BINPERSID"), (b"))))s.", "SETITEM"), (b")(NNu.", "SETITEMS")):
        write_archive(tmp_path / "pytorch_model.bin", b"\x80\x02" + pickled, {})
        assert f"pickle instruction {name} at" in probe_refusal(tmp_path)


# PyTorch itself.


@pytest.mark.peer
def test_files_of_pytorch(tmp_path):
    """Needs torch (scripts/requirements-golden.txt)."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(13, 7), torch.nn.Linear(7, 300)).to(torch.bfloat16)
    state = module.state_dict()
    state["shared"] = state["1.weight"][100:200]
    state["half"] = torch.randn(3, 5).half()
    state["parameter"] = torch.nn.Parameter(torch.randn(2, 3))
    state["scalar"] = torch.tensor(3)
    state["eight"] = torch.randn(4).to(torch.float8_e4m3fn)
    state["empty"] = torch.empty(0, 4)
    torch.save(state, tmp_path / "pytorch_model.bin")
    write_config(tmp_path)
    with Probe(tmp_path) as probe:
        plain = (torch.float32, torch.float16, torch.bfloat16)
        for name, tensor in state.items():
            if tensor.ndim in (1, 2) and tensor.dtype in plain and tensor.numel():
                values, _ = probe.tensor(name, tuple(tensor.shape))
                assert (values == tensor.detach().float().numpy()).all(), name


@pytest.mark.peer
def test_old_files_of_pytorch_say_what_to_do(tmp_path):
    """Needs torch (scripts/requirements-golden.txt)."""
    import torch

    write_config(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "before version 1.6" in probe_refusal(tmp_path)
