#pragma once
// The one door for text: conversations in, text out. The command line, the Python package and the HTTP server all
// enter at Pipeline::submit.
//
// A Pipeline opens a model (a Hugging Face folder, a GGUF file, a folder that `lanner convert` wrote, or what a hub
// calls "org/name"), renders the chat template, tokenizes, submits to the Engine, and turns tokens back into text:
// incrementally, never half a character, cut at stop strings. All methods may be called from any thread. Callbacks run
// on the engine's thread: return soon, do not throw.
//
//   LANNER_ASSIGN_OR_RETURN(auto pipeline, Pipeline::open("model.gguf", {}));
//   LANNER_ASSIGN_OR_RETURN(Response answer, pipeline->generate({.messages = {{"user", "Hello"}}}));

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/engine.h"
#include "lanner/options.h"
#include "lanner/status.h"

namespace lanner {

struct Message {
  std::string role;  // system, user, assistant, tool
  std::string content;
  /// What else the message has, as a JSON object: "tool_calls", "tool_call_id", "name", "reasoning_content", or
  /// "content" as a list of parts, which then stands in place of the text above. Empty: nothing.
  std::string more{};
};

/// What a request may set; what it leaves open comes from the model's generation_config.json, else from the defaults
/// in the comments.
struct GenerationConfig {
  std::int32_t max_new_tokens = 512;
  std::int32_t min_new_tokens = 0;
  std::int32_t n = 1;
  std::optional<bool> do_sample;            // false: greedy
  std::optional<float> temperature;         // 0.8
  std::optional<float> top_p;               // 0.8
  std::optional<std::int32_t> top_k;        // 40
  std::optional<float> min_p;               // 0
  std::optional<float> repetition_penalty;  // 1
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::optional<std::uint64_t> seed;  // drawn at random when open
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool include_stop_str_in_output = false;
  std::int32_t logprobs = -1;
  std::vector<std::pair<std::int32_t, float>> logit_bias;
  std::vector<std::string> stop;       // strings; they may begin and end within a token
  std::vector<std::int32_t> stop_ids;  // besides the model's own
  std::vector<std::string> bad_words;
};

/// What answers can be held to: docs/structured-output.md.
struct GrammarSource {
  enum class Kind : std::uint8_t { kJsonSchema, kRegex, kLark };
  Kind kind = Kind::kJsonSchema;
  std::string text{};
};

struct GenerationRequest {
  std::vector<Message> messages;      // rendered by the chat template
  std::optional<std::string> prompt;  // instead of messages: text as it is, special tokens recognized
  GenerationConfig config;
  // What the chat template is given besides the messages, as JSON; empty: nothing.
  std::string tools{};                 // a list of functions
  std::string documents{};             // a list of objects, for templates that know retrieval
  std::string chat_template_kwargs{};  // an object of more variables, such as {"enable_thinking": false};
                                       // "add_generation_prompt" and "continue_final_message" are those of Transformers
  std::vector<std::int32_t> prompt_ids{};         // instead of messages and prompt: tokens as they are, BOS among them
  std::shared_ptr<const TokenGrammar> grammar{};  // what every answer must be: Pipeline::compile_grammar()
  RequestWants::Logits logits = RequestWants::Logits::kNone;
};

/// What the model thought of one delivered token, when GenerationConfig::logprobs asks.
struct TokenLogprobs {
  std::int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // the best, as many as asked for
};

/// A piece of one choice's answer.
struct Chunk {
  RequestId request = 0;
  std::int32_t choice = 0;
  std::string text;  // may be empty when only a token id is new
  // Without the stop token, unless include_stop_str_in_output; generated_tokens counts it all the same.
  std::vector<std::int32_t> token_ids;
  std::vector<TokenLogprobs> logprobs;  // one a token id, or none
  std::vector<float> logits;            // (rows, vocab), new ones, as GenerationRequest::logits asks
  bool final = false;                   // of the whole request; the fields below are then set
  std::vector<FinishReason> reasons;
  std::vector<std::string> stops;  // one a choice: the stop string that ended it; empty where none did
  Status status;
  std::int32_t prompt_tokens = 0;
  std::int32_t cached_tokens = 0;
  std::int32_t generated_tokens = 0;
};

struct Response {
  std::vector<std::string> texts;  // one a choice
  std::vector<std::vector<std::int32_t>> token_ids;
  std::vector<std::vector<TokenLogprobs>> logprobs;  // (choices, tokens), or empty lists
  std::vector<FinishReason> reasons;
  std::int32_t prompt_tokens = 0;
  std::int32_t cached_tokens = 0;
  std::int32_t generated_tokens = 0;
};

struct PipelineOptions {
  EngineOptions engine;
  /// --chat-template: a built-in's name, a .jinja file, a JSON file or string; empty: the model's own.
  std::string chat_template;
  /// For a model that is no local path but a hub's: --revision and --download-dir. docs/hub.md says what happens then.
  std::string revision;
  std::string download_dir;
  /// Share of the model that is downloaded, 0 to 1, where that has to be; called on the thread of open().
  std::function<void(double)> download_progress;
  /// A line that the user should see while open() works, such as what is downloaded from where.
  std::function<void(std::string_view)> on_note;
  /// Share of the model that is loaded, 0 to 1; called on the thread of open().
  std::function<void(double)> load_progress;
};

class Pipeline {
 public:
  static Result<std::unique_ptr<Pipeline>> open(const std::string& model, const PipelineOptions& options);
  virtual ~Pipeline() = default;

  /// Starts a request; `on_chunk` is called until, and including, one final chunk. A refusal calls nothing.
  virtual Result<RequestId> submit(GenerationRequest request, std::function<void(Chunk)> on_chunk) = 0;
  virtual void cancel(RequestId id) = 0;
  /// submit() and wait.
  virtual Result<Response> generate(GenerationRequest request) = 0;

  /// For GenerationRequest::grammar, of as many requests as one likes. What is wrong with the text is kInvalidArgument,
  /// kResourceExhausted says that it is too complex; within a second, but for the first, which prepares the vocabulary.
  virtual Result<std::shared_ptr<const TokenGrammar>> compile_grammar(const GrammarSource& source) = 0;

  /// The prompt that a request becomes, and the tokens of a text.
  virtual Result<std::string> render(const GenerationRequest& request) const = 0;
  virtual Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special_tokens) const = 0;
  virtual Result<std::string> decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const = 0;
  /// The bytes that one token stands for within a text, blank in front included; they need not be whole characters.
  /// Empty for an id that has no token.
  virtual std::string token_bytes(std::int32_t id) const = 0;
  /// The tokens that submit() would give to the engine.
  virtual Result<std::vector<std::int32_t>> prompt_tokens(const GenerationRequest& request) const = 0;

  virtual Engine& engine() = 0;
  virtual std::string model_name() const = 0;  // the last part of the path, or of what a hub calls it
  virtual std::string architecture() const = 0;
  virtual std::string device() const = 0;  // "cpu avx512, 2 threads"
  /// What opening took: "0.31 s  device 0.12 s, weights 0.16 s at 23.5 GB/s, memory 0.03 s".
  virtual std::string loading() const = 0;
  /// What a user should be told at start, a line each, such as that the model has no chat template.
  virtual std::vector<std::string> notes() const = 0;
};

}  // namespace lanner
