#pragma once
// The zip container as PyTorch writes it: entries stored, not compressed, so that they can be used where they lie.
//
// Zip says what an entry is in its directory and once more in front of the entry, and readers that believe different
// ones see different files. Here both must give the same name and say that it is stored; sizes are the directory's
// (those in front may be left out). The archive must end with the file, no two entries may share a byte, and no name
// may be there twice. Checksums are not computed: they would read every weight once more and protect from nothing but
// accidents.
//
// Format: PKWARE's APPNOTE.TXT, with the zip64 records.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::model {

/// Entry name -> its bytes in the file.
using ZipEntries = std::map<std::string, std::span<const std::byte>, std::less<>>;

/// kUnsupported for what is well formed but compressed, encrypted or split; kCorrupt for the rest.
Result<ZipEntries> read_stored_zip(std::span<const std::byte> file, std::string_view path);

}  // namespace lanner::model
