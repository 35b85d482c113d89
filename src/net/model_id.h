#pragma once
// What a user calls a model on a hub: "org/name", or "org/name:selector" for one GGUF file out of several.

#include <optional>
#include <string>
#include <string_view>

namespace lanner::net {

struct ModelId {
  std::string organization;
  std::string name;
  std::string selector;  // a GGUF file's path, or what its name ends with, such as "Q4_K_M"; empty for none

  std::string repository() const { return organization + "/" + name; }
};

/// Nothing when `text` cannot be a hub's id: it has two parts of letters, digits and "-_.", at most 96 characters each,
/// which neither begin nor end with "-" or "." and hold no "--" or "..".
std::optional<ModelId> parse_model_id(std::string_view text);

/// Whether `text` can be a branch, a tag or a commit: no "..", no control character, nothing that leaves a folder.
bool is_revision(std::string_view text);

}  // namespace lanner::net
