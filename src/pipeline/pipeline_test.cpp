// Requests to chunks, over an engine that follows a script.

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "pipeline/pipeline_test_support.h"
#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using Ids = std::vector<std::int32_t>;

Script script_of(std::vector<Ids> tokens) {
  Script script;
  script.tokens = std::move(tokens);
  return script;
}

/// All chunks of a request, in order.
class Recorder {
 public:
  std::function<void(Chunk)> callback() {
    return [this](Chunk chunk) {
      const std::lock_guard lock(mutex_);
      if (chunk.final) ++finals_;
      chunks_.push_back(std::move(chunk));
      changed_.notify_all();
    };
  }

  /// Until the final chunk; false when it does not come.
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return finals_ > 0; });
  }
  int finals() {
    const std::lock_guard lock(mutex_);
    return finals_;
  }
  std::vector<Chunk> chunks() {
    const std::lock_guard lock(mutex_);
    return chunks_;
  }
  Chunk final() { return chunks().back(); }
  std::string text(std::int32_t choice = 0) {
    std::string text;
    for (const Chunk& chunk : chunks()) {
      if (chunk.choice == choice) text += chunk.text;
    }
    return text;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Chunk> chunks_;
  int finals_ = 0;
};

GenerationRequest ask(GenerationConfig config = {}) {
  return {.messages = {{"user", "Hi"}}, .prompt = std::nullopt, .config = std::move(config)};
}

TEST(Pipeline, AnswersWithoutTheStopToken) {
  TestPipeline test = make_test_pipeline(says("Hello"));
  const auto response = test.pipeline->generate(ask());
  ASSERT_TRUE(response.ok()) << response.status().message();
  EXPECT_EQ(response->texts, std::vector<std::string>{"Hello"});
  EXPECT_EQ(response->token_ids.front(), byte_tokens("Hello"));
  EXPECT_EQ(response->reasons, std::vector<FinishReason>{FinishReason::kStop});
  EXPECT_EQ(response->generated_tokens, 6);  // the stop token counts
  const std::string prompt = "<user>Hi<assistant>";
  EXPECT_EQ(response->prompt_tokens, static_cast<int>(prompt.size()) + 1);
  Ids expected{kTestBos};
  for (const std::int32_t id : byte_tokens(prompt)) expected.push_back(id);
  EXPECT_EQ(test.engine->requests().front().prompt, expected);
}

TEST(Pipeline, BosIsNeverDoubled) {
  TestPipeline test = make_test_pipeline(says("x"), {}, "{{ bos_token }}{{ messages[0].content }}");
  ASSERT_TRUE(test.pipeline->generate(ask()).ok());
  EXPECT_EQ(test.engine->requests().back().prompt, (Ids{kTestBos, 'H', 'i'}));
  ASSERT_TRUE(test.pipeline->generate({.messages = {}, .prompt = "Hi", .config = {}}).ok());
  EXPECT_EQ(test.engine->requests().back().prompt, (Ids{kTestBos, 'H', 'i'}));
  ASSERT_TRUE(test.pipeline->generate({.messages = {}, .prompt = "<bos>Hi", .config = {}}).ok());
  EXPECT_EQ(test.engine->requests().back().prompt, (Ids{kTestBos, 'H', 'i'}));
}

TEST(Pipeline, StopStringOverThreeTokens) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script = script_of({byte_tokens("good ENDless")});
    script.delay = std::chrono::milliseconds(1);
    return script;
  });
  GenerationConfig config;
  config.stop = {"END"};
  Recorder recorder;
  ASSERT_TRUE(test.pipeline->submit(ask(config), recorder.callback()).ok());
  ASSERT_TRUE(recorder.wait());
  EXPECT_EQ(recorder.text(), "good ");
  EXPECT_EQ(recorder.final().reasons, std::vector<FinishReason>{FinishReason::kStop});
  EXPECT_EQ(recorder.final().stops, std::vector<std::string>{"END"});
  EXPECT_TRUE(recorder.final().status.ok());
  EXPECT_EQ(recorder.final().generated_tokens, 8);
  EXPECT_EQ(test.engine->cancels(), 1);
  for (const Chunk& chunk : recorder.chunks()) EXPECT_EQ(chunk.text.find('E'), std::string::npos) << chunk.text;

  config.include_stop_str_in_output = true;
  const auto included = test.pipeline->generate(ask(config));
  ASSERT_TRUE(included.ok());
  EXPECT_EQ(included->texts.front(), "good END");
}

TEST(Pipeline, WhatLookedLikeAStopStringIsShownAtTheEnd) {
  TestPipeline test = make_test_pipeline(says("the EN"));
  GenerationConfig config;
  config.stop = {"END"};
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->texts.front(), "the EN");
  // Also when the length ends it.
  config.max_new_tokens = 5;
  const auto cut = test.pipeline->generate(ask(config));
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->texts.front(), "the E");
  EXPECT_EQ(cut->reasons.front(), FinishReason::kLength);
}

TEST(Pipeline, HalfCharactersAreHeldBack) {
  TestPipeline test = make_test_pipeline(says("a上😀é"));
  Recorder recorder;
  ASSERT_TRUE(test.pipeline->submit(ask(), recorder.callback()).ok());
  ASSERT_TRUE(recorder.wait());
  EXPECT_EQ(recorder.text(), "a上😀é");
  EXPECT_EQ(recorder.final().stops, std::vector<std::string>{""});
  std::vector<std::string> pieces;
  for (const Chunk& chunk : recorder.chunks()) {
    if (!chunk.text.empty()) pieces.push_back(chunk.text);
  }
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "上", "😀", "é"}));
  EXPECT_EQ(recorder.chunks().size(), 11U);  // one a token, besides the stop token's: it is not part of the answer
}

TEST(Pipeline, HalfACharacterAtTheEndBecomesAReplacement) {
  TestPipeline test = make_test_pipeline(says("a\xE4\xB8"));
  const auto response = test.pipeline->generate(ask());
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->texts.front(), "a\xEF\xBF\xBD");
}

TEST(Pipeline, StopTokenTextOnlyWhenIncludedAndShown) {
  TestPipeline test = make_test_pipeline(says("x"));
  GenerationConfig config;
  config.skip_special_tokens = false;
  EXPECT_EQ(test.pipeline->generate(ask(config))->texts.front(), "x");
  config.include_stop_str_in_output = true;
  const auto shown = test.pipeline->generate(ask(config));
  EXPECT_EQ(shown->texts.front(), "x<eos>");
  EXPECT_EQ(shown->token_ids.front(), (Ids{'x', kTestEos}));
}

TEST(Pipeline, ThreeChoicesEndOnTheirOwn) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Ids first = byte_tokens("one");
    first.push_back(kTestEos);
    Script script = script_of({first, byte_tokens("two STOP and much more text"), byte_tokens("three......")});
    script.delay = std::chrono::milliseconds(1);
    return script;
  });
  GenerationConfig config;
  config.n = 3;
  config.stop = {"STOP"};
  config.max_new_tokens = 11;
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok()) << response.status().message();
  EXPECT_EQ(response->texts, (std::vector<std::string>{"one", "two ", "three......"}));
  EXPECT_EQ(response->reasons,
            (std::vector<FinishReason>{FinishReason::kStop, FinishReason::kStop, FinishReason::kLength}));
  EXPECT_EQ(response->generated_tokens, 4 + 8 + 11);
  EXPECT_EQ(test.engine->cancels(), 0);  // the third choice was still wanted
}

TEST(Pipeline, AllChoicesStoppedCancelsTheRequest) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script = script_of({byte_tokens("a!bbbb"), byte_tokens("aaaa!bb")});
    script.endless = true;
    return script;
  });
  GenerationConfig config;
  config.n = 2;
  config.stop = {"!"};
  config.max_new_tokens = 1000;
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->texts, (std::vector<std::string>{"a", "aaaa"}));
  EXPECT_EQ(response->reasons, (std::vector<FinishReason>{FinishReason::kStop, FinishReason::kStop}));
  EXPECT_EQ(test.engine->cancels(), 1);
}

TEST(Pipeline, CancelAtEveryPoint) {
  for (int after = 0; after <= 7; ++after) {
    TestPipeline test = make_test_pipeline([](const Request&) {
      Script script = script_of({byte_tokens("h\xC3\xA9llo")});
      script.endless = true;
      script.first_delay = std::chrono::milliseconds(2);
      return script;
    });
    Recorder recorder;
    int seen = 0;
    const auto record = recorder.callback();
    const auto id = test.pipeline->submit(ask(), [&](Chunk chunk) {
      const RequestId request = chunk.request;
      const bool token = !chunk.token_ids.empty();
      record(std::move(chunk));
      if (token && ++seen == after) test.pipeline->cancel(request);
    });
    ASSERT_TRUE(id.ok());
    if (after == 0) test.pipeline->cancel(*id);
    ASSERT_TRUE(recorder.wait()) << after;
    test.pipeline->cancel(*id);  // after the end: nothing
    EXPECT_EQ(recorder.final().reasons, std::vector<FinishReason>{FinishReason::kAbort});
    EXPECT_TRUE(recorder.final().status.ok());
    EXPECT_EQ(recorder.final().generated_tokens, after);
    test.pipeline.reset();
    EXPECT_EQ(recorder.finals(), 1) << after;
  }
}

TEST(Pipeline, ShutDownEndsEveryRequestOnce) {
  Recorder first;
  Recorder second;
  {
    TestPipeline test = make_test_pipeline([](const Request&) {
      Script script = script_of({byte_tokens("x")});
      script.endless = true;
      script.delay = std::chrono::milliseconds(1);
      return script;
    });
    ASSERT_TRUE(test.pipeline->submit(ask(), first.callback()).ok());
    ASSERT_TRUE(test.pipeline->submit(ask(), second.callback()).ok());
  }
  for (Recorder* recorder : {&first, &second}) {
    EXPECT_EQ(recorder->finals(), 1);
    EXPECT_EQ(recorder->final().reasons, std::vector<FinishReason>{FinishReason::kAbort});
  }
}

TEST(Pipeline, ErrorMidwayIsTheFinalChunk) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script = script_of({byte_tokens("hello")});
    script.fail_after = 3;
    script.failure = internal_error("logits are not finite");
    return script;
  });
  Recorder recorder;
  ASSERT_TRUE(test.pipeline->submit(ask(), recorder.callback()).ok());
  ASSERT_TRUE(recorder.wait());
  EXPECT_EQ(recorder.text(), "hel");
  EXPECT_EQ(recorder.final().reasons, std::vector<FinishReason>{FinishReason::kError});
  EXPECT_EQ(recorder.final().status.message(), "logits are not finite");
  EXPECT_EQ(recorder.finals(), 1);
  EXPECT_EQ(test.pipeline->generate(ask()).status().message(), "logits are not finite");
}

TEST(Pipeline, DetokenizerFailureEndsTheRequest) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script = script_of({{'a', -5, 'b'}});
    script.endless = true;
    return script;
  });
  Recorder recorder;
  ASSERT_TRUE(test.pipeline->submit(ask(), recorder.callback()).ok());
  ASSERT_TRUE(recorder.wait());
  EXPECT_EQ(recorder.text(), "a");
  EXPECT_EQ(recorder.final().reasons, std::vector<FinishReason>{FinishReason::kError});
  EXPECT_FALSE(recorder.final().status.ok());
  EXPECT_EQ(test.engine->cancels(), 1);
}

TEST(Pipeline, IgnoreEosGoesOn) {
  TestPipeline test = make_test_pipeline(says("ab"));
  GenerationConfig config;
  config.ignore_eos = true;
  config.max_new_tokens = 3;
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->texts.front(), "ab");
  EXPECT_EQ(response->reasons.front(), FinishReason::kLength);
  EXPECT_TRUE(test.engine->requests().front().stop_ids.empty());
}

TEST(Pipeline, PassesTheRestOn) {
  TestPipeline test = make_test_pipeline([](const Request&) { return script_of({{kTestEos, 'a', 'b', kTestEos}}); });
  GenerationConfig config;
  config.min_new_tokens = 2;
  config.bad_words = {"no"};
  config.presence_penalty = 0.5F;
  config.frequency_penalty = 0.25F;
  config.logit_bias = {{3, 1.0F}};
  config.seed = 11;
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->texts.front(), "ab");
  const Request request = test.engine->requests().front();
  EXPECT_EQ(request.min_new_tokens, 2);
  EXPECT_EQ(request.bad_words, (std::vector<Ids>{{'n', 'o'}, {' ', 'n', 'o'}}));
  EXPECT_EQ(request.sampling.presence_penalty, 0.5F);
  EXPECT_EQ(request.sampling.frequency_penalty, 0.25F);
  EXPECT_EQ(request.sampling.logit_bias.size(), 1U);
  EXPECT_EQ(request.sampling.seed, 11U);
  EXPECT_EQ(request.stop_ids, Ids{kTestEos});
}

TEST(Pipeline, LogprobsComeWithTheirTokens) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script = script_of({{'a', 'b', kTestEos}});
    script.logprobs = {-0.5F, -1.5F};
    return script;
  });
  GenerationConfig config;
  config.logprobs = 1;
  const auto response = test.pipeline->generate(ask(config));
  ASSERT_TRUE(response.ok());
  ASSERT_EQ(response->logprobs.front().size(), 2U);
  EXPECT_EQ(response->logprobs.front()[1].token, 'b');
  EXPECT_EQ(response->logprobs.front()[1].logprob, -1.5F);
  EXPECT_EQ(response->logprobs.front()[1].top.size(), 1U);
}

TEST(Pipeline, TheContextBoundsTheAnswer) {
  TestPipeline test = make_test_pipeline(says("a long answer"), {.session_len = 8});
  const auto response = test.pipeline->generate({.messages = {}, .prompt = "12345", .config = {}});
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(test.engine->requests().front().max_new_tokens, 2);
  EXPECT_EQ(response->texts.front(), "a ");
  EXPECT_EQ(response->reasons.front(), FinishReason::kLength);
  EXPECT_EQ(test.pipeline->generate({.messages = {}, .prompt = "12345678", .config = {}}).status().code(),
            StatusCode::kTooLong);
}

TEST(Pipeline, RefusesWithoutCallingBack) {
  TestPipeline test = make_test_pipeline([](const Request&) {
    Script script;
    script.refusal = resource_exhausted("the queue is full");
    return script;
  });
  const auto never = [](const Chunk&) { FAIL() << "a refused request called back"; };
  const auto refuse = [&](GenerationRequest request) {
    const auto id = test.pipeline->submit(std::move(request), never);
    EXPECT_FALSE(id.ok());
    return id.status();
  };
  EXPECT_EQ(refuse(ask()).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(refuse({.messages = {}, .prompt = std::nullopt, .config = {}}).message(),
            "a request needs messages or a prompt");
  EXPECT_EQ(refuse({.messages = {}, .prompt = "", .config = {}}).message(), "the prompt is empty");
  EXPECT_EQ(refuse({.messages = {{"user", "a"}}, .prompt = "b", .config = {}}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse({.messages = {}, .prompt = "ab\xFF", .config = {}}).message(),
            "the prompt is not UTF-8: byte 2 is wrong");
  EXPECT_EQ(refuse({.messages = {{"user", "\xC0"}}, .prompt = std::nullopt, .config = {}}).message(),
            "message 1 is not UTF-8: byte 0 is wrong");
  GenerationConfig many;
  many.n = 1 << 30;
  EXPECT_EQ(test.pipeline->generate(ask(many)).status().code(), StatusCode::kInvalidArgument);
}

TEST(Pipeline, ManyThreadsAtOnce) {
  TestPipeline test = make_test_pipeline([](const Request& request) {
    Ids ids(request.prompt.end() - 3, request.prompt.end());  // says back the end of the prompt
    ids.push_back(kTestEos);
    return script_of({ids});
  });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(100 + thread * 50 + i);
        const auto response = test.pipeline->generate({.messages = {}, .prompt = "say " + text, .config = {}});
        ASSERT_TRUE(response.ok());
        EXPECT_EQ(response->texts.front(), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Pipeline, TakesTokensAsTheyAre) {
  TestPipeline test = make_test_pipeline(says("x"));
  EXPECT_TRUE(test.pipeline->generate({.prompt_ids = {72, 105}}).ok());
  EXPECT_EQ(test.engine->requests().at(0).prompt, (Ids{72, 105}));  // without <bos>
  EXPECT_EQ(test.pipeline->generate({.prompt = "x", .prompt_ids = {72}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(test.pipeline->generate({.messages = {{"user", "x"}}, .prompt_ids = {72}}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(test.pipeline->generate({.prompt_ids = {-1}}).ok());
  EXPECT_EQ(*test.pipeline->prompt_tokens({.messages = {{"user", "A"}}}),
            (Ids{kTestBos, '<', 'u', 's', 'e', 'r', '>', 'A', '<', 'a', 's', 's', 'i', 's', 't', 'a', 'n', 't', '>'}));
}

/// All tokens of a text, one after the other.
std::string spelled(const Pipeline& pipeline, std::string_view text) {
  std::string bytes;
  const Result<Ids> ids = pipeline.encode(text, /*add_special_tokens=*/false);
  EXPECT_TRUE(ids.ok());
  for (const std::int32_t id : *ids) bytes += pipeline.token_bytes(id);
  return bytes;
}

TEST(Pipeline, TokensTogetherAreTheText) {
  const TestPipeline byte_level = make_test_pipeline(says("x"));
  EXPECT_EQ(spelled(*byte_level.pipeline, "a é 你\n\xF0\x9F\x99\x82"), "a é 你\n\xF0\x9F\x99\x82");
  EXPECT_EQ(byte_level.pipeline->token_bytes(0xC3), "\xC3");
  EXPECT_EQ(byte_level.pipeline->token_bytes(kTestEos), "<eos>");
  EXPECT_EQ(byte_level.pipeline->token_bytes(511), "");
  EXPECT_EQ(byte_level.pipeline->token_bytes(-1), "");

  auto tokenizer = Tokenizer::from_json(testing::sentencepiece_like_json(), "test");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto sentencepiece = make_pipeline({.engine = std::make_unique<ScriptedEngine>(says("x")),
                                            .tokenizer = *tokenizer,
                                            .chat_template = *ChatTemplate::from_jinja("x", {}, "test")});
  EXPECT_EQ(sentencepiece->token_bytes(258), " Hi");  // where decoding it alone says "Hi"
  EXPECT_EQ(sentencepiece->token_bytes(257), " ");
  EXPECT_EQ(sentencepiece->token_bytes(259), "Hi");
  EXPECT_EQ(sentencepiece->token_bytes(0xE4 + 1), "\xE4");
  EXPECT_EQ(sentencepiece->token_bytes('\n' + 1), "\n");
}

TEST(Pipeline, EosIdsOutsideTheVocabularyAreDropped) {
  TestPipeline test = make_test_pipeline(says("x"), {}, kTestTemplate, {.eos_ids = {99999999}});
  const auto response = test.pipeline->generate(ask());
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(test.engine->requests().front().stop_ids, Ids{kTestEos});  // the tokenizer's own in their place
}

}  // namespace
}  // namespace lanner
