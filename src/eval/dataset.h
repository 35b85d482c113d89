#pragma once
// Texts to measure a model on: a named set that lies in a data folder, or any file.
//
// A named set NAME is the file NAME/test.txt in the first of these folders that has it:
//   1. $LANNER_DATA_DIR, when it is set;
//   2. lanner/data in $XDG_DATA_HOME (else ~/.local/share) and in each of $XDG_DATA_DIRS (else
//   /usr/local/share:/usr/share);
//   3. ../share/lanner/data beside the program's own folder, where `cmake --install` puts what ships;
//   4. data/ of the source tree, for a program that still lies in its build folder.
// The network is never asked.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "text/chat_template.h"

namespace lanner::eval {

/// Those folders for this process, in the order above, whether they exist or not.
std::vector<std::filesystem::path> data_folders();

struct Dataset {
  std::string path;  // of the file that was read
  std::string text;  // UTF-8, as it lies in the file
};

/// `name_or_file`: a named set, else a file: .jsonl has one object a line whose "text" strings are joined by an empty
/// line; anything else is taken whole. kNotFound for a named set that is in none of `folders` says where to put it.
Result<Dataset> read_dataset(const std::string& name_or_file, const std::vector<std::filesystem::path>& folders);

/// A conversation as the one text that a model was trained on.
using RenderConversation = std::function<Result<std::string>(const ChatTemplateInputs& inputs)>;

struct CalibrationPiece {
  std::string text;
  bool is_conversation = false;  // rendered: special tokens are spelled out in it
};

struct CalibrationSet {
  std::string path;  // of the file that was read
  std::vector<CalibrationPiece> pieces;
};

/// A text to calibrate a model with, which is not the one that it is measured on: of a named set NAME the file
/// NAME/train.txt, NAME/NAME.train.txt, NAME/valid.txt or NAME/NAME.valid.txt, else a file as above. Of ptb, lines are
/// sentences and are joined by an empty line, as LMDeploy does.
///
/// A line of a .jsonl file without a "text" may have "messages" (and "tools"), as in the protocol of OpenAI; each such
/// conversation is a piece of its own, and what other text lies between two is another.
Result<CalibrationSet> read_calibration_set(const std::string& name_or_file,
                                            const std::vector<std::filesystem::path>& folders,
                                            const RenderConversation& render);

}  // namespace lanner::eval
