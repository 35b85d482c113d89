#include "eval/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace lanner::eval {
namespace {

namespace fs = std::filesystem;

class DatasetTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "lanner_dataset_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const fs::path& name, const std::string& content) const {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

  fs::path folder_;
};

TEST_F(DatasetTest, TextFilesAreTakenWhole) {
  const std::string path = write("a.txt", " \n = Title = \r\n\n");
  const auto dataset = read_dataset(path, {});
  ASSERT_TRUE(dataset.ok());
  EXPECT_EQ(dataset->text, " \n = Title = \r\n\n");
  EXPECT_EQ(dataset->path, path);
  EXPECT_EQ(read_dataset(write("empty.txt", ""), {})->text, "");
}

TEST_F(DatasetTest, JsonLinesAreJoinedByAnEmptyLine) {
  const std::string path =
      write("a.jsonl", "{\"text\": \"one\\n\"}\n\n{\"id\": 2, \"text\": \"\"}\r\n{\"text\": \"\xE4\xB8\x89\"}");
  const auto dataset = read_dataset(path, {});
  ASSERT_TRUE(dataset.ok()) << dataset.status().message();
  EXPECT_EQ(dataset->text, "one\n\n\n\n\n\xE4\xB8\x89");
}

TEST_F(DatasetTest, BadJsonLinesAreNamed) {
  for (const char* bad : {"{\"text\": 5}", "{\"txt\": \"a\"}", "[1]", "\"text\"", "{\"text\": \"a\"", "7"}) {
    const auto dataset = read_dataset(write("bad.jsonl", std::string("{\"text\": \"good\"}\n") + bad + "\n"), {});
    EXPECT_EQ(dataset.status().code(), StatusCode::kCorrupt) << bad;
    EXPECT_NE(dataset.status().message().find("bad.jsonl:2:"), std::string::npos) << dataset.status().message();
  }
}

TEST_F(DatasetTest, NamedSetsComeFromTheFirstFolderThatHasThem) {
  write("second/wikitext2/test.txt", "second");
  const std::vector<fs::path> folders{folder_ / "first", folder_ / "second", folder_ / "third"};
  EXPECT_EQ(read_dataset("wikitext2", folders)->text, "second");
  write("third/wikitext2/test.txt", "third");
  EXPECT_EQ(read_dataset("wikitext2", folders)->text, "second");
  write("first/wikitext2/test.txt", "first");
  EXPECT_EQ(read_dataset("wikitext2", folders)->text, "first");
}

TEST_F(DatasetTest, AMissingSetSaysWhereToPutIt) {
  const auto dataset = read_dataset("ptb", {folder_ / "first", folder_ / "second"});
  EXPECT_EQ(dataset.status().code(), StatusCode::kNotFound);
  EXPECT_NE(dataset.status().message().find((folder_ / "first/ptb/test.txt").string()), std::string::npos)
      << dataset.status().message();
}

TEST_F(DatasetTest, AnUnknownNameIsNotFound) {
  const auto dataset = read_dataset("wikitext3", {folder_});
  EXPECT_EQ(dataset.status().code(), StatusCode::kNotFound);
  EXPECT_NE(dataset.status().message().find("wikitext2"), std::string::npos);
  EXPECT_EQ(read_dataset(folder_.string(), {folder_}).status().code(), StatusCode::kNotFound);
}

TEST(DataFolders, TheEnvironmentComesFirst) {
  setenv("LANNER_DATA_DIR", "/nowhere/data", 1);
  setenv("XDG_DATA_HOME", "/nowhere/home", 1);
  setenv("XDG_DATA_DIRS", "/nowhere/a:/nowhere/b", 1);
  const auto folders = data_folders();
  ASSERT_GE(folders.size(), 4U);
  EXPECT_EQ(folders[0], "/nowhere/data");
  EXPECT_EQ(folders[1], "/nowhere/home/lanner/data");
  EXPECT_EQ(folders[2], "/nowhere/a/lanner/data");
  EXPECT_EQ(folders[3], "/nowhere/b/lanner/data");
  for (const char* name : {"LANNER_DATA_DIR", "XDG_DATA_HOME", "XDG_DATA_DIRS"}) unsetenv(name);
}

TEST(DataFolders, AProgramInTheBuildFolderFindsTheSourceTreesData) {
  const auto dataset = read_dataset("wikitext2", {data_folders().back()});
  ASSERT_TRUE(dataset.ok()) << dataset.status().message();
  EXPECT_EQ(dataset->text.size(), 1'256'449U);
}

/// The one piece of text that a calibration set has.
std::string text_of(const Result<CalibrationSet>& set) {
  EXPECT_TRUE(set.ok() && set->pieces.size() == 1 && !set->pieces.front().is_conversation) << set.status().message();
  return set.ok() && !set->pieces.empty() ? set->pieces.front().text : std::string();
}

/// In place of a chat template: "role: content;" for each message.
Result<std::string> render_plainly(const ChatTemplateInputs& inputs) {
  std::string text = inputs.tools.is_null() ? "" : "[tools]";
  for (const auto& message : inputs.messages) {
    const auto role = message["role"].get<std::string>();
    if (role == "nobody") return invalid_argument("no such role");
    text += role + ": " + message.value("content", "(call)") + ";";
  }
  return inputs.add_generation_prompt ? text + "assistant:" : text;
}

TEST_F(DatasetTest, ConversationsAreRenderedPiecesOfTheirOwn) {
  const std::string path =
      write("a.jsonl",
            R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
{"text": "one"}

{"text": "two", "messages": 7}
{"messages": [{"role": "user", "content": "\u4e09"}], "id": 1}
{"messages": [{"role": "assistant", "tool_calls": []}], "tools": [{}]}
{"text": "three"})");
  const auto set = read_calibration_set(path, {}, render_plainly);
  ASSERT_TRUE(set.ok()) << set.status().message();
  std::vector<std::string> texts;
  std::string kinds;
  for (const CalibrationPiece& piece : set->pieces) {
    texts.push_back(piece.text);
    kinds += piece.is_conversation ? 'c' : 't';
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"user: Hi;assistant: Ho;", "one\n\ntwo", "user: \xE4\xB8\x89;",
                                             "[tools]assistant: (call);", "three"}));
  EXPECT_EQ(kinds, "ctcct");
  EXPECT_EQ(set->path, path);
}

TEST_F(DatasetTest, BadConversationsAreNamed) {
  std::string deep = "{\"messages\": ";
  deep.append(100, '[').append(100, ']').append("}");
  const std::vector<std::pair<const char*, const char*>> cases{
      {R"({"messages": []})", "\"messages\""},
      {R"({"messages": {"role": "user", "content": "a"}})", "\"messages\""},
      {R"({"messages": [{"role": "user", "content": "a"}, 5]})", "messages[1] is not an object"},
      {R"({"messages": [{"content": "a"}]})", "messages[0] has no string \"role\""},
      {R"({"messages": [{"role": 1, "content": "a"}]})", "messages[0] has no string \"role\""},
      {R"({"messages": [{"role": "user", "content": null}]})", "messages[0] has no string \"content\""},
      {R"({"messages": [{"role": "user", "content": "a"}], "tools": "all"})", "\"tools\""},
      {R"({"messages": [{"role": "nobody", "content": "a"}]})", "no such role"},
      {R"({"messages": [)", ""},
      {R"({"id": 5})", "\"text\" or a list \"messages\""},
      {deep.c_str(), ""},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"\xFF\"}]}", ""},
  };
  for (const auto& [line, what] : cases) {
    const std::string content = std::string("{\"text\": \"good\"}\n\n") + line + "\n";
    const auto set = read_calibration_set(write("bad.jsonl", content), {}, render_plainly);
    ASSERT_FALSE(set.ok()) << line;
    const std::string message = set.status().message();
    EXPECT_NE(message.find("bad.jsonl:3: "), std::string::npos) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST_F(DatasetTest, CalibrationTakesAnotherSplitThanMeasuring) {
  write("data/wikitext2/test.txt", "measured");
  EXPECT_EQ(read_calibration_set("wikitext2", {folder_ / "data"}, render_plainly).status().code(),
            StatusCode::kNotFound);
  write("data/wikitext2/valid.txt", " = Title = \n one \n");
  EXPECT_EQ(text_of(read_calibration_set("wikitext2", {folder_ / "data"}, render_plainly)), " = Title = \n one \n");
  EXPECT_EQ(read_dataset("wikitext2", {folder_ / "data"})->text, "measured");
  write("data/wikitext2/wikitext2.train.txt", "longer");
  EXPECT_EQ(text_of(read_calibration_set("wikitext2", {folder_ / "data"}, render_plainly)), "longer");
  // What is in an earlier folder wins, whichever split it is.
  write("mine/wikitext2/valid.txt", "mine");
  EXPECT_EQ(text_of(read_calibration_set("wikitext2", {folder_ / "mine", folder_ / "data"}, render_plainly)), "mine");
  const auto missing = read_calibration_set("c4", {folder_ / "data"}, render_plainly);
  EXPECT_NE(missing.status().message().find((folder_ / "data/c4/train.txt").string()), std::string::npos);
}

TEST_F(DatasetTest, SentencesOfPtbAreJoinedByAnEmptyLine) {
  write("ptb/ptb.valid.txt", " no it was n't black monday \n\n but while \r\n");
  EXPECT_EQ(text_of(read_calibration_set("ptb", {folder_}, render_plainly)), "no it was n't black monday\n\nbut while");
  // A file is taken as it is.
  EXPECT_EQ(
      text_of(read_calibration_set((folder_ / "ptb/ptb.valid.txt").string(), {folder_}, render_plainly)).substr(0, 1),
      " ");
  EXPECT_EQ(text_of(read_calibration_set(write("a.jsonl", "{\"text\": \"one\"}"), {}, render_plainly)), "one");
}

}  // namespace
}  // namespace lanner::eval
