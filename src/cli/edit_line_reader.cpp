#include "cli/edit_line_reader.h"

#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <filesystem>
#include <string_view>

#include "cli/interrupts.h"
#include "cli/output.h"
#include "core/user_folders.h"

namespace lanner::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr wchar_t kReplacement = 0xFFFD;

/// libedit converts between wide characters and bytes by the locale, which on a bare machine is plain C.
bool have_utf8_locale() {
  const auto is_utf8 = [] { return std::string_view(::nl_langinfo(CODESET)) == "UTF-8"; };
  std::setlocale(LC_CTYPE, "");
  if (is_utf8()) return true;
  std::setlocale(LC_CTYPE, "C.UTF-8");
  return is_utf8();
}

/// The history file, created for the user alone; an empty path when that is impossible.
std::string prepare_history_file() {
  std::filesystem::path folder = user_state_folder();
  if (folder.empty()) return {};
  folder /= "lanner";
  std::error_code error;
  if (std::filesystem::create_directories(folder, error)) {
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  }
  std::string path = (folder / "chat_history").string();
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (file < 0) return {};
  const bool regular = [&] {
    struct stat info{};
    return ::fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  }();
  ::close(file);
  return regular ? path : std::string();
}

struct ReleaseEditLine {
  void operator()(EditLine* line) const { ::el_end(line); }
};
struct ReleaseHistory {
  void operator()(History* history) const { ::history_end(history); }
};

class EditLineReader final : public LineReader {
 public:
  explicit EditLineReader(Interrupts& interrupts) : interrupts_(interrupts) {}

  bool start() {
    // The prompt must not end up in a file that stdout was sent to.
    FILE* screen = stdout_is_terminal() ? stdout : stderr;
    edit_line_.reset(::el_init("lanner", stdin, screen, stderr));
    history_.reset(::history_init());
    if (!edit_line_ || !history_) return false;
    EditLine* line = edit_line_.get();
    ::el_set(line, EL_CLIENTDATA, this);
    ::el_set(line, EL_PROMPT, &EditLineReader::show_prompt);
    ::el_set(line, EL_EDITOR, "emacs");
    ::el_set(line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    ::el_set(line, EL_GETCFN, &EditLineReader::get_character);
    HistEvent event{};
    ::history(history_.get(), &event, H_SETSIZE, kHistoryLines);
    ::history(history_.get(), &event, H_SETUNIQUE, 1);
    ::el_set(line, EL_HIST, ::history, history_.get());
    history_file_ = prepare_history_file();
    if (!history_file_.empty()) ::history(history_.get(), &event, H_LOAD, history_file_.c_str());
    return true;
  }

  Line read(std::string_view prompt) override {
    // libedit counts columns in its prompt and knows nothing of a newline there.
    const std::size_t last_line = prompt.rfind('\n') + 1;  // npos + 1 is 0
    FILE* screen = stdout_is_terminal() ? stdout : stderr;
    std::fwrite(prompt.data(), 1, last_line, screen);
    std::fflush(screen);
    prompt_ = prompt.substr(last_line);
    interrupted_ = false;
    ::el_resize(edit_line_.get());
    int length = 0;
    const char* bytes = ::el_gets(edit_line_.get(), &length);
    if (interrupted_) {
      ::el_reset(edit_line_.get());
      return {Line::Kind::kInterrupted, {}};
    }
    if (bytes == nullptr || length <= 0) return {Line::Kind::kEnd, {}};
    std::string text(bytes, static_cast<std::size_t>(length));
    const bool complete = text.ends_with('\n');
    if (complete) text.pop_back();
    remember(text);
    return {complete ? Line::Kind::kText : Line::Kind::kEnd, std::move(text)};
  }

 private:
  static EditLineReader& self(EditLine* line) {
    void* data = nullptr;
    ::el_get(line, EL_CLIENTDATA, &data);
    return *static_cast<EditLineReader*>(data);
  }

  static char* show_prompt(EditLine* line) { return self(line).prompt_.data(); }

  /// libedit's source of characters: 1, 0 at the end, -1 on failure.
  static int get_character(EditLine* line, wchar_t* character) { return self(line).read_character(character); }

  int read_character(wchar_t* character) {
    unsigned char lead = 0;
    int state = read_byte(lead);
    if (state != 1) return state;
    const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
    if (more < 0) {
      *character = kReplacement;
      return 1;
    }
    auto value = static_cast<unsigned>(more == 0 ? lead : lead & (0x3FU >> static_cast<unsigned>(more)));
    for (int i = 0; i < more; ++i) {
      unsigned char next = 0;
      state = read_byte(next);
      if (state != 1) return state;
      if ((next & 0xC0U) != 0x80) {
        pushed_back_ = next;
        value = kReplacement;
        break;
      }
      value = (value << 6U) | (next & 0x3FU);
    }
    *character = static_cast<wchar_t>(value > 0x10FFFF || (value >= 0xD800 && value < 0xE000) ? kReplacement : value);
    return 1;
  }

  int read_byte(unsigned char& byte) {
    if (pushed_back_ >= 0) {
      byte = static_cast<unsigned char>(pushed_back_);
      pushed_back_ = -1;
      return 1;
    }
    while (true) {
      const Wait wait = wait_for_input(interrupts_);
      if (wait == Wait::kInterrupted) {
        interrupted_ = true;
        errno = EINTR;
        return -1;
      }
      if (wait == Wait::kFailed) return -1;
      const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
      if (count >= 0) return static_cast<int>(count);
      if (errno == EIO) return 0;  // the terminal has gone
      if (errno != EINTR && errno != EAGAIN) return -1;
    }
  }

  void remember(const std::string& text) {
    if (text.empty()) return;
    HistEvent event{};
    ::history(history_.get(), &event, H_ENTER, text.c_str());
    if (!history_file_.empty()) ::history(history_.get(), &event, H_SAVE, history_file_.c_str());
  }

  Interrupts& interrupts_;
  std::unique_ptr<History, ReleaseHistory> history_;
  std::unique_ptr<EditLine, ReleaseEditLine> edit_line_;  // goes first: it uses the history
  std::string history_file_;
  std::string prompt_;
  bool interrupted_ = false;
  int pushed_back_ = -1;
};

}  // namespace

std::unique_ptr<LineReader> make_edit_line_reader(Interrupts& interrupts) {
  if (!have_utf8_locale()) return nullptr;
  auto reader = std::make_unique<EditLineReader>(interrupts);
  if (!reader->start()) return nullptr;
  return reader;
}

}  // namespace lanner::cli
