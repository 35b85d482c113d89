#pragma once
// A table of tensors out of a pickle, read without running it.
//
// A pickle is a program for a stack machine that can import and call anything. This reader knows the few instructions
// of it that build a dict of tensors (protocol 2, as torch.save writes), and the few names that may be "called":
// they make a value of this file's own types. Any other instruction or name is refused with its name and place. No
// instruction repeats work, so time and memory grow with the bytes of the pickle alone; those are limited.
//
// Instructions: https://github.com/python/cpython/blob/main/Lib/pickletools.py

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace lanner::model {

/// What a pickle says of one block of elements; the bytes are in an entry of the archive that bears its key.
struct PickledStorage {
  std::string_view dtype;  // as safetensors spells it; empty: bytes, whose tensors say what they are
  std::string_view key;
  std::int64_t count = 0;  // of elements, not negative
};

struct PickledTensor {
  std::string_view name;
  std::string_view dtype;
  PickledStorage storage;
  std::int64_t first = 0;  // element of the storage, not negative
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // as many as sizes
};

/// The tensors of the dict that a pickle holds, in its order, no name twice. Views live as long as the pickle's
/// bytes. kUnsupported for what a table of tensors has no need of, kCorrupt for what makes no sense.
Result<std::vector<PickledTensor>> read_tensor_pickle(std::span<const std::byte> pickle, std::string_view where);

/// The name that Python's documentation gives an instruction, such as REDUCE; "unknown" for none of its.
std::string_view pickle_opcode_name(std::uint8_t opcode);

}  // namespace lanner::model
