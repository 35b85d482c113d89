#pragma once
// The files of a model's repository, as a hub lists them, and which of them Lanner needs.
//
// A listing comes from outside: no name in it is used before check_file_name() has seen it, and no checksum before
// is_digest_name() has.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "net/model_id.h"

namespace lanner::net {

struct RepositoryFile {
  std::string path;  // "config.json", "Q4_K_M/model.gguf"
  std::int64_t size = 0;
  std::string checksum;  // as Digest::for_name() takes it; also the name of its blob in the cache; empty: unknown
};

inline constexpr std::size_t kMaxFiles = 50'000;  // of a repository
inline constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 44;
inline constexpr std::int64_t kMaxIndexBytes = 64 << 20;

/// The first of these that a repository or folder has is its weights. An index comes before a single file, as when it
/// is read.
inline constexpr std::array<std::string_view, 4> kWeightFiles{"model.safetensors.index.json", "model.safetensors",
                                                              "pytorch_model.bin.index.json", "pytorch_model.bin"};

/// Whether a file of this name stays inside the folder it is put into: a relative path of at most 1024 bytes whose
/// parts are neither empty nor "." nor "..", without backslashes and control characters. kCorrupt, with `where` in
/// front.
Status check_file_name(std::string_view name, std::string_view where);

/// Appends a file that a hub lists. kCorrupt, with `where` in front, for a bad name, a size below 0 or above
/// kMaxFileBytes, a checksum that is not `proper_checksum` (that differs from hub to hub), and beyond kMaxFiles.
Status add_file(RepositoryFile file, bool proper_checksum, std::string_view where, std::vector<RepositoryFile>& files);

/// What to fetch, in this order: small files come first, so that a folder with weights has all the rest.
struct FileChoice {
  std::vector<RepositoryFile> files;
  /// The index of sharded weights, when `files` ends with it: its shards are to be added by add_shards().
  std::string index;
  /// The one GGUF file, when that is the model; else the folder is.
  std::string gguf;
};

/// Of a repository in Hugging Face's format: config, tokenizer, templates, and weights from safetensors, else .bin;
/// never code. Of one with GGUF files, or when `id` selects one: that file alone. kNotFound lists what could be chosen.
Result<FileChoice> choose_files(const std::vector<RepositoryFile>& listing, const ModelId& id);

/// Adds the shards that the index names, once it is here. Each must be in the listing.
Status add_shards(std::string_view index_text, const std::vector<RepositoryFile>& listing, FileChoice& choice);

/// The names in an index's weight_map, each once, sorted and checked.
Result<std::vector<std::string>> shard_names(std::string_view index_text, std::string_view where);

/// The path, among `paths`, of the GGUF file that `id` means. kNotFound when there is none or there are several, which
/// the message lists.
Result<std::string> choose_gguf(std::vector<std::string> paths, const ModelId& id);

/// Whether files of this name hold a vocabulary.
bool is_vocabulary(std::string_view name);

}  // namespace lanner::net
