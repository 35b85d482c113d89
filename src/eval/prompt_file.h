#pragma once
// Prompts to ask a server: the first message of each conversation of a file in ShareGPT's form,
//
//   [{"conversations": [{"from": "human", "value": "…"}, …]}, …]
//
// or, of a .jsonl file, the "prompt" of each line: {"prompt": "…"}.

#include <string>
#include <vector>

#include "lanner/status.h"

namespace lanner::eval {

/// Those that are not empty, in the file's order, at most `most`. kNotFound, kCorrupt (naming the entry or line),
/// kInvalidArgument for a file of more than 1 GB.
Result<std::vector<std::string>> read_prompts(const std::string& path, std::size_t most);

}  // namespace lanner::eval
