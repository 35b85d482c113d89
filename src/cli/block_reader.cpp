#include "cli/block_reader.h"

#include "cli/line_reader.h"

namespace lanner::cli {
namespace {

constexpr std::string_view kPrompt = "\ndouble enter to end input >>> ";

}  // namespace

Block read_block(LineReader& lines) {
  Block block;
  for (std::string_view prompt = kPrompt;; prompt = {}) {
    LineReader::Line line = lines.read(prompt);
    if (line.kind == LineReader::Line::Kind::kInterrupted) return {Block::Kind::kInterrupted, {}};
    if (!line.text.empty()) {
      if (!block.text.empty()) block.text += '\n';
      block.text += line.text;
    }
    if (line.kind == LineReader::Line::Kind::kEnd) block.kind = Block::Kind::kEnd;
    if (line.text.empty() || line.kind == LineReader::Line::Kind::kEnd) return block;
  }
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

}  // namespace lanner::cli
