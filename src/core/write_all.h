#pragma once
// Writing bytes to the last one, however few of them the system takes at once. Threads: any.

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace lanner {

/// False when a write failed, of which errno tells; some bytes may have been written.
bool write_all(int descriptor, std::span<const std::byte> bytes);
/// The same at a place of the file, without moving its position.
bool write_all_at(int descriptor, std::span<const std::byte> bytes, off_t place);

}  // namespace lanner
