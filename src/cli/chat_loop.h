#pragma once
// The conversation in the terminal: blocks of lines in, answers out.
//
// A block ends with an empty line. `exit` leaves, `end` forgets the conversation, Ctrl-C aborts the answer that is
// being written, or leaves when there is none; with piped input it always leaves. Answers go to stdout, and so does the
// prompt where that is a terminal; all else goes to stderr.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/block_reader.h"
#include "cli/interrupts.h"
#include "cli/line_reader.h"
#include "lanner/pipeline.h"

namespace lanner::cli {

struct ChatOptions {
  GenerationConfig generation;  // without a seed: one is drawn for each conversation
  std::string system;           // system message; empty: what the template says
  bool verbose = false;         // a line of figures after each answer
  bool interactive = false;     // stdin is a terminal
};

class ChatLoop {
 public:
  ChatLoop(Pipeline& pipeline, LineReader& lines, Interrupts& interrupts, ChatOptions options);

  /// The exit code: 0, or 1 when stdout failed. With piped input also 1 when a block got no answer, and
  /// kExitInterrupted after Ctrl-C.
  int run();

 private:
  enum class Turn { kGoOn, kStop };

  /// Answers one block; what it was not answered to leaves the conversation.
  Turn answer(std::string text);
  /// Writes what arrives until the final chunk.
  struct Reply;
  Status follow(RequestId id, Reply& reply);
  void report_refusal(const Status& status);
  /// With piped input the exit code is to say so.
  void miss_answer();
  Turn after_interrupt();
  void start_over();
  Turn handle(const Block& block);
  Turn finish(const Status& written);

  Pipeline& pipeline_;
  LineReader& lines_;
  Interrupts& interrupts_;
  const ChatOptions options_;
  const bool clean_output_;  // stdout is a terminal
  std::vector<Message> messages_;
  std::uint64_t seed_ = 0;
  int exit_code_ = 0;
};

}  // namespace lanner::cli
