#include "cli/calibration_tokens.h"

#include <memory>
#include <optional>
#include <utility>

#include "cli/output.h"
#include "cli/verbs.h"
#include "eval/dataset.h"
#include "pipeline/choose_template.h"

namespace lanner::cli {
namespace {

/// Of the first conversation on: texts need no template.
class Renderer {
 public:
  explicit Renderer(const model::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  Result<std::string> render(const ChatTemplateInputs& inputs) {
    if (!chosen_) {
      LANNER_ASSIGN_OR_RETURN(chosen_, choose_template(checkpoint_, {}));
      if (!chosen_->note.empty()) note(printable(chosen_->note));
    }
    return chosen_->chat_template.render(inputs);
  }

 private:
  const model::Checkpoint& checkpoint_;
  std::optional<ChosenTemplate> chosen_;
};

}  // namespace

Result<CalibrationTokens> read_calibration_tokens(const std::string& dataset, const model::Checkpoint& checkpoint) {
  Renderer renderer(checkpoint);
  LANNER_ASSIGN_OR_RETURN(
      const eval::CalibrationSet set,
      eval::read_calibration_set(dataset, eval::data_folders(),
                                 [&](const ChatTemplateInputs& inputs) { return renderer.render(inputs); }));
  LANNER_ASSIGN_OR_RETURN(const auto tokenizer, checkpoint.tokenizer());
  CalibrationTokens result{.path = set.path};
  for (const eval::CalibrationPiece& piece : set.pieces) {
    const auto encoded = piece.is_conversation
                             ? encode_prompt(*tokenizer, checkpoint.special_tokens(), piece.text)
                             : tokenizer->encode(piece.text, {.add_special_tokens = true, .parse_special = false});
    if (!encoded.ok()) return with_context(encoded.status(), set.path);
    result.tokens.insert(result.tokens.end(), encoded->begin(), encoded->end());
  }
  return result;
}

}  // namespace lanner::cli
