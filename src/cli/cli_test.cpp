// The parts of the command line that need no terminal. What users see is tested from outside, in tests/cli.

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/progress_bar.h"

namespace lanner::cli {
namespace {

TEST(EditDistance, CountsChanges) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("chat", "chat"), 0U);
  EXPECT_EQ(edit_distance("chta", "chat"), 1U);  // swapped neighbours
  EXPECT_EQ(edit_distance("cat", "chat"), 1U);
  EXPECT_EQ(edit_distance("chart", "chat"), 1U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
}

TEST(Nearest, OnlyWhatIsNear) {
  const std::vector<std::string> flags{"temperature", "top-p", "top-k", "tp"};
  EXPECT_EQ(nearest("temprature", flags), "temperature");
  EXPECT_EQ(nearest("topk", flags), "top-k");
  EXPECT_EQ(nearest("something-else", flags), "");
  EXPECT_EQ(nearest(std::string(1000, 'x'), flags), "");
}

/// What a small program makes of a command line.
struct Parsed {
  int code = 0;
  std::string name;
  std::vector<std::string> stop;
  double share = 0.5;
  float penalty = 0;
  bool fast = false;
};

Parsed parse(const std::vector<std::string>& words) {
  CLI::App program("test", "test");
  CLI::App* verb = program.add_subcommand("verb", "a verb");
  Parsed parsed;
  verb->add_option("NAME", parsed.name);
  verb->add_option("--share-of-cache", parsed.share);
  verb->add_option("--penalty", parsed.penalty);
  verb->add_flag("--fast", parsed.fast);
  verb->add_flag("--fancy");
  verb->add_option("--stop", parsed.stop)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  parsed.code = parse_arguments(program, words);
  return parsed;
}

TEST(Arguments, FlagsAnywhereShortenedAndWithUnderscores) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"verb", "model", "--share-of-cache", "0.25"},
                                             {"verb", "--share-of-cache", "0.25", "model"},
                                             {"verb", "--share-of-cache=0.25", "model"},
                                             {"verb", "--share_of_cache=0.25", "model"},
                                             {"verb", "model", "--sh", "0.25"},
                                             {"verb", "--share_of", "0.25", "--", "model"}}) {
    const Parsed parsed = parse(words);
    EXPECT_EQ(parsed.code, -1);
    EXPECT_EQ(parsed.name, "model");
    EXPECT_EQ(parsed.share, 0.25);
  }
}

TEST(Arguments, ValuesThatLookLikeFlags) {
  EXPECT_FLOAT_EQ(parse({"verb", "--penalty", "-0.5"}).penalty, -0.5F);
  EXPECT_FLOAT_EQ(parse({"verb", "--penalty=-.5"}).penalty, -0.5F);
  EXPECT_EQ(parse({"verb", "--stop=--fast"}).stop, std::vector<std::string>{"--fast"});
  EXPECT_EQ(parse({"verb", "--", "--fast"}).name, "--fast");
  EXPECT_EQ(parse({"verb", "--stop", "verb", "model"}).stop, std::vector<std::string>{"verb"});
}

TEST(Arguments, RepeatedAndOddValues) {
  EXPECT_EQ(parse({"verb", "--stop", "a", "--stop", "b", "model"}).stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(parse({"verb", "--stop", "[a,b]"}).stop, std::vector<std::string>{"[a,b]"});
  EXPECT_EQ(parse({"verb", "--stop", "a b\n\"c\""}).stop, std::vector<std::string>{"a b\n\"c\""});
}

TEST(Arguments, MistakesEndWithTwo) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"verb", "--unknown"},
                                             {"verb", "--fa"},
                                             {"verb", "-x"},
                                             {"verb", "--share-of-cache"},
                                             {"verb", "--share-of-cache", "--fast"},
                                             {"verb", "--share-of-cache", "much"},
                                             {"vreb"},
                                             {"verb", "one", "two"}}) {
    EXPECT_EQ(parse(words).code, 2) << words.back();
  }
}

TEST(EngineFlags, WhatIsNotBuiltYetSaysSo) {
  const auto status = [](const EngineFlags& flags) { return pipeline_options(flags).status(); };
  EXPECT_TRUE(status({}).ok());
  EngineFlags flags;
  flags.tp = 2;
  EXPECT_EQ(status(flags).message(), "--tp 2 is not available yet in this version");
  flags = {};
  flags.quant_policy = "fp8";
  EXPECT_EQ(status(flags).message(), "--quant-policy fp8 is not available yet in this version");
  flags.quant_policy = "8";
  EXPECT_EQ(pipeline_options(flags)->engine.quant_policy, QuantPolicy::kInt8);
  flags.quant_policy = "int4";
  EXPECT_EQ(pipeline_options(flags)->engine.quant_policy, QuantPolicy::kInt4);
  flags = {};
  flags.model_format = "fp8";
  EXPECT_EQ(status(flags).code(), StatusCode::kUnsupported);
  flags.model_format = "awq";
  EXPECT_EQ(pipeline_options(flags)->engine.model_format, "awq");
  flags = {};
  flags.cache_max_entry_count = 0.0;
  EXPECT_EQ(status(flags).code(), StatusCode::kInvalidArgument);
  flags = {};
  flags.disable_prefix_caching = true;
  EXPECT_FALSE(pipeline_options(flags)->engine.enable_prefix_caching);
}

TEST(Printable, NothingThatSteersATerminal) {
  EXPECT_EQ(printable("a\tb\nc é上"), "a\tb\nc é上");
  EXPECT_EQ(printable("\x1b]52;c;x\x07y\r\x7f"), "]52;c;xy");
  EXPECT_EQ(printable("a\xC2\x9Bz\xC2\xA9"), "az\xC2\xA9");
}

TEST(Progress, FitsTheTerminal) {
  EXPECT_EQ(progress_line("loading", 0.5, 10, 80), "loading [===============               ]  50 %  10 s left");
  EXPECT_EQ(progress_line("loading", 0.0, 10, 80), "loading [                              ]   0 %");
  EXPECT_EQ(progress_line("loading", 1.0, 10, 80), "loading [==============================] 100 %");
  EXPECT_NE(progress_line("loading", 0.25, 60, 80).find("3:00 min left"), std::string::npos);
  for (int width = 1; width < 80; ++width) {
    EXPECT_LT(progress_line("loading", 0.3, 99, width).size(), static_cast<std::size_t>(std::max(width, 2)));
  }
}

TEST(FormatBytes, Units) {
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(98'300'000), "98.3 MB");
  EXPECT_EQ(format_bytes(1.25e9), "1.2 GB");
}

}  // namespace
}  // namespace lanner::cli
