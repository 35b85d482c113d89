"""GPTQ as its paper (arXiv 2210.17323) writes it, in NumPy and float64, with the inverse of the Hessian; and the format that
AutoGPTQ calls "gptq".

Written from the paper and the format's description, not from src/quant.
"""

import numpy as np
from numpy_awq import Llama

F = np.float32
DAMPING = 0.01
INPUTS = {"qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "o": ["self_attn.o_proj"],
          "mlp": ["mlp.gate_proj", "mlp.up_proj"], "down": ["mlp.down_proj"]}


def scales_of(weight):
    """Symmetric, of (rows, group): one for each row, as fp16 stores it."""
    return np.maximum(2 * np.abs(weight).max(axis=1).astype(F), F(1e-5)) / F(15)


def round_gptq(weight, hessian, group):
    """(rows, cols) -> codes (rows, cols) and scales (rows, groups)."""
    w = weight.astype(np.float64)
    rows, cols = w.shape
    damped = hessian + DAMPING * np.mean(np.diag(hessian)) * np.eye(cols)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    codes = np.zeros((rows, cols), np.uint32)
    scales = np.zeros((rows, cols // group), np.float16)
    for j in range(cols):
        if j % group == 0:
            scales[:, j // group] = scales_of(w[:, j : j + group])
        step = scales[:, j // group].astype(np.float64)
        codes[:, j] = np.clip(np.rint(w[:, j] / step) + 8, 0, 15)
        error = (w[:, j] - step * (codes[:, j].astype(np.float64) - 8)) / upper[j, j]
        w[:, j + 1 :] -= error[:, None] * upper[j, None, j + 1 :]
    return codes, scales


def pack_in_order(values):
    """(n, m) of 0..15 -> (n / 8, m): a word has eight rows of a column, the first in its lowest bits."""
    words = np.zeros((values.shape[0] // 8, values.shape[1]), np.uint32)
    for i in range(8):
        words |= values[i::8].astype(np.uint32) << np.uint32(4 * i)
    return words.view(np.int32)


def pack(codes, scales):
    """The tensors of a matrix: codes (rows, cols), scales (rows, groups), zero points of 8, which are kept less one."""
    cols, groups = codes.shape[1], scales.shape[1]
    zeros = np.full((codes.shape[0], groups), 8 - 1)
    return {"qweight": pack_in_order(codes.T), "qzeros": np.ascontiguousarray(pack_in_order(zeros).T),
            "scales": np.ascontiguousarray(scales.T), "g_idx": (np.arange(cols) // (cols // groups)).astype(np.int32)}


def unpack(tensors, module):
    """Codes (rows, cols) of what a folder holds."""
    words = tensors[f"{module}.qweight"].view(np.uint32)
    codes = np.zeros((words.shape[0] * 8, words.shape[1]), np.uint32)
    for i in range(8):
        codes[i::8] = words >> np.uint32(4 * i) & np.uint32(15)
    return codes.T


def dequantize(tensors, module):
    """(rows, cols) in fp32 of what a folder holds."""
    packed = tensors[f"{module}.qzeros"].view(np.uint32)
    zeros = np.zeros((packed.shape[0], packed.shape[1] * 8), F)
    for i in range(8):
        zeros[:, i::8] = (packed >> np.uint32(4 * i) & np.uint32(15)) + 1
    groups = tensors[f"{module}.g_idx"]
    scales = tensors[f"{module}.scales"].astype(F)
    return (unpack(tensors, module).astype(F) - zeros[groups].T) * scales[groups].T


class Gptq(Llama):
    """A Llama whose layers are rounded one after the other, each by what the rounded ones before it compute."""

    def see(self, name, values):
        wide = values.astype(np.float64)
        self.hessians[name[1]] = self.hessians.get(name[1], 0) + wide.T @ wide

    def quantize(self, windows, group):
        """Codes and scales of each module. The Hessians of all layers stay in self.all_hessians."""
        result, self.all_hessians = {}, {}
        states = [self.embed(window) for window in windows]
        for i in range(self.c["num_hidden_layers"]):
            self.hessians = {}
            for state in states:
                self.layer(i, state)
            for what, linears in INPUTS.items():
                for linear in linears:
                    module = f"model.layers.{i}.{linear}"
                    self.all_hessians[module] = self.hessians[what]
                    codes, scales = result[module] = round_gptq(self.t[f"{module}.weight"], self.hessians[what], group)
                    step = scales.astype(F).repeat(group, axis=1)
                    self.t[f"{module}.weight"] = (codes.astype(F) - 8) * step
            self.hessians = {}
            states = [self.layer(i, state) for state in states]
        return result
