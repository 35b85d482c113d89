"""What torch.load(path, weights_only=True) makes of a file, in plain Python and NumPy: nothing else can be made of it."""

import collections
import pickle
import zipfile

import numpy as np


class TensorUnpickler(pickle.Unpickler):
    """Knows the names that a dict of tensors needs, and no other."""

    def __init__(self, file, read_storage):
        super().__init__(file)
        self.read_storage = read_storage

    def find_class(self, module, name):
        known = {("torch._utils", "_rebuild_tensor_v2"): rebuild, ("torch", "HalfStorage"): np.dtype("<f2"),
                 ("torch", "FloatStorage"): np.dtype("<f4"), ("collections", "OrderedDict"): collections.OrderedDict}
        return known[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, device, count = pid
        assert kind == "storage" and device == "cpu"
        elements = np.frombuffer(self.read_storage(key), dtype)
        assert elements.size == count
        return elements


def rebuild(storage, first, size, stride, requires_grad, hooks):
    assert requires_grad is False and not hooks
    return np.lib.stride_tricks.as_strided(storage[first:], size, [step * storage.itemsize for step in stride]).copy()


def load(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        folder = archive.namelist()[0].partition("/")[0]
        assert archive.read(f"{folder}/version") == b"3\n" and archive.read(f"{folder}/byteorder") == b"little"
        with archive.open(f"{folder}/data.pkl") as file:
            return TensorUnpickler(file, lambda key: archive.read(f"{folder}/data/{key}")).load()
