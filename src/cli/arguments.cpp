#include "cli/arguments.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <span>
#include <utility>

#include "cli/help.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace lanner::cli {
namespace {

struct UsageError {
  const CLI::App* app;
  std::string message;
};

std::string did_you_mean(const std::string& name) {
  return name.empty() ? "" : fmt::format("; did you mean {}?", name);
}

/// The full name of a flag that may be shortened; throws UsageError.
std::string resolve_flag(const CLI::App& app, std::string name) {
  const std::string typed = "--" + name;
  std::ranges::replace(name, '_', '-');
  const std::vector<std::string> names = flag_names(app);
  if (std::ranges::find(names, name) != names.end()) return name;
  std::vector<std::string> matches;
  for (const std::string& candidate : names) {
    if (candidate.starts_with(name)) matches.push_back(candidate);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.empty()) {
    const std::string near = nearest(name, names);
    throw UsageError{&app, fmt::format("unknown flag {}{}", typed, did_you_mean(near.empty() ? "" : "--" + near))};
  }
  std::string list;
  for (const std::string& match : matches) list += fmt::format("{}--{}", list.empty() ? "" : ", ", match);
  throw UsageError{&app, fmt::format("ambiguous flag {}: could be {}", typed, list)};
}

// Without it CLI11 would take the MODEL behind a list for one more value.
constexpr const char* kEndOfList = "--";

bool is_whole_number(const std::string& word) {
  return !word.empty() && std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; });
}

/// "=true" or "=false" for the words True and False, which LMDeploy's documents write behind flags; else empty.
std::string truth_value(const std::string& word) {
  if (word == "True" || word == "true") return "=true";
  if (word == "False" || word == "false") return "=false";
  return "";
}

/// Walks through the command line once, in the order of the words.
class Normalizer {
 public:
  explicit Normalizer(const CLI::App& program) : app_(&program) {}

  void take(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (only_positionals_) {
        result_.push_back(word);
      } else if (word == "--") {
        only_positionals_ = true;
        result_.push_back(word);
      } else if (word.starts_with("--")) {
        i += take_flag(word, std::span(words).subspan(i + 1));
      } else if (is_short_flag(word)) {
        if (app_->get_option_no_throw(word.substr(0, 2)) == nullptr) {
          throw UsageError{app_, fmt::format("unknown flag {}", word)};
        }
        result_.push_back(word);
      } else {
        take_positional(word);
      }
    }
  }

  const CLI::App* app() const { return app_; }
  std::vector<std::string> result() { return std::move(result_); }

 private:
  static bool is_short_flag(const std::string& word) {
    if (word.size() < 2 || word[0] != '-') return false;
    return word[1] != '.' && (word[1] < '0' || word[1] > '9');  // -0.5 is a number
  }

  /// How many of the following words belong to the flag.
  std::size_t take_flag(const std::string& word, std::span<const std::string> next) {
    const std::size_t equals = word.find('=');
    const std::string name = resolve_flag(*app_, word.substr(2, equals == std::string::npos ? equals : equals - 2));
    const CLI::Option* option = app_->get_option("--" + name);
    const bool is_list = option->get_items_expected_max() > 1;
    const bool takes_value = option->get_items_expected_min() > 0 && option->get_type_size() > 0;
    if (!takes_value) {
      const std::string truth = equals == std::string::npos && !next.empty() ? truth_value(next[0]) : "";
      result_.push_back("--" + name + (equals == std::string::npos ? truth : word.substr(equals)));
      return truth.empty() ? 0 : 1;
    }
    result_.push_back("--" + name);
    if (equals != std::string::npos) {
      result_.push_back(word.substr(equals + 1));
      if (is_list) result_.emplace_back(kEndOfList);
      return 0;
    }
    if (next.empty() || (next[0].starts_with("--") && next[0].size() > 2)) {
      throw UsageError{
          app_, fmt::format("--{} needs a value{}", name,
                            next.empty() ? "" : fmt::format(" (write --{}={} if you mean that)", name, next[0]))};
    }
    result_.push_back(next[0]);
    if (!is_list || !is_whole_number(next[0])) return 1;
    std::size_t taken = 1;
    for (; taken < next.size() && is_whole_number(next[taken]); ++taken) result_.push_back(next[taken]);
    result_.emplace_back(kEndOfList);
    return taken;
  }

  void take_positional(const std::string& word) {
    std::vector<std::string> verbs;
    for (const CLI::App* verb : verbs_of(*app_)) {
      if (verb->get_name() == word) {
        app_ = verb;
        result_.push_back(word);
        return;
      }
      verbs.push_back(verb->get_name());
    }
    if (!verbs.empty()) {
      throw UsageError{app_, fmt::format("unknown verb '{}'{}", word, did_you_mean(nearest(word, verbs)))};
    }
    result_.push_back(word);
  }

  const CLI::App* app_;
  bool only_positionals_ = false;
  std::vector<std::string> result_;
};

int usage_error(const CLI::App& app, const std::string& message) {
  write_stderr(fmt::format("{}{}: error: {}\n", usage_line(app), full_name(app), printable(message)));
  return kExitUsage;
}

bool asks_for_help(const std::vector<std::string>& words) {
  return std::ranges::any_of(words, [](const std::string& word) { return word == "-h" || word == "--help"; });
}

/// `lanner chat turbomind PATH`, as LMDeploy up to 0.5 wanted it.
void drop_old_engine_name(std::vector<std::string>& words) {
  if (words.size() < 2 || words[0] != "chat" || (words[1] != "turbomind" && words[1] != "torch")) return;
  struct stat info{};
  if (::stat(words[1].c_str(), &info) == 0) return;
  note(fmt::format("`chat {}` is an old spelling: there is one engine, and its name can be left out", words[1]));
  words.erase(words.begin() + 1);
}

/// CLI11's words for a wrong value, in the manner of the other messages.
std::string describe(const CLI::ParseError& error) {
  constexpr std::string_view kConversion = "Could not convert: ";
  std::string message = error.what();
  if (message.starts_with(kConversion)) {
    message.erase(0, kConversion.size());
    const std::size_t equals = message.find(" = ");
    if (equals != std::string::npos) {
      return fmt::format("{}: '{}' is not a valid value", message.substr(0, equals), message.substr(equals + 3));
    }
  }
  if (!message.empty() && message[0] >= 'A' && message[0] <= 'Z' &&
      dynamic_cast<const CLI::RequiredError*>(&error) == nullptr) {
    message[0] = static_cast<char>(message[0] - 'A' + 'a');
  }
  return message;
}

}  // namespace

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    std::ranges::copy(option->get_lnames(), std::back_inserter(names));
  }
  return names;
}

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

CLI::Option* add_choice(CLI::App& verb, const std::string& name, std::string& value,
                        const std::vector<std::string>& choices, const std::string& description) {
  std::string type;
  for (const std::string& choice : choices) type += (type.empty() ? "" : "|") + choice;
  return verb.add_option(name, value, description)
      ->check([choices, type](const std::string& given) {
        if (std::ranges::find(choices, given) != choices.end()) return std::string();
        return fmt::format("'{}' is not one of {}", given, type);
      })
      ->type_name(type);
}

CLI::Option* limit(CLI::Option* option, std::int64_t least, std::int64_t most) {
  return option->check(CLI::Range(least, most).description(""));
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  // distance[i][j] is that of a[0, i) and b[0, j).
  std::vector<std::vector<std::size_t>> distance(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) distance[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) distance[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      distance[i][j] = std::min({change, distance[i - 1][j] + 1, distance[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        distance[i][j] = std::min(distance[i][j], distance[i - 2][j - 2] + 1);
      }
    }
  }
  return distance[a.size()][b.size()];
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  constexpr std::size_t kMaxWord = 64;  // nobody means a flag by more
  if (word.size() > kMaxWord) return {};
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

int parse_arguments(CLI::App& program, std::vector<std::string> arguments) {
  drop_old_engine_name(arguments);
  Normalizer normalizer(program);
  try {
    normalizer.take(arguments);
    std::vector<std::string> words = normalizer.result();
    std::ranges::reverse(words);  // as CLI11 wants them
    program.parse(words);
    return -1;
  } catch (const UsageError& error) {
    if (!asks_for_help(arguments)) return usage_error(*error.app, error.message);
  } catch (const CLI::CallForVersion& version) {
    return report_write(write_stdout(fmt::format("{}\n", version.what())));
  } catch (const CLI::CallForHelp&) {
    return report_write(write_stdout(help_text(*normalizer.app())));
  } catch (const CLI::ParseError& error) {
    if (!asks_for_help(arguments)) return usage_error(*normalizer.app(), describe(error));
  }
  return report_write(write_stdout(help_text(*normalizer.app())));
}

}  // namespace lanner::cli
