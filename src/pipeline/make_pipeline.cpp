#include "pipeline/make_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "pipeline/answer.h"
#include "pipeline/check_utf8.h"
#include "pipeline/choose_template.h"
#include "pipeline/generation_settings.h"
#include "pipeline/grammars.h"
#include "pipeline/template_inputs.h"
#include "text/byte_level.h"

namespace lanner {
namespace {

class TextPipeline final : public Pipeline {
 public:
  explicit TextPipeline(PipelineParts parts) : parts_(std::move(parts)) {
    // A wrong id in generation_config.json must not make every request fail.
    std::erase_if(parts_.defaults.eos_ids,
                  [&](std::int32_t id) { return id < 0 || id >= parts_.engine->vocab_size(); });
    const std::optional<std::int32_t> eos = parts_.tokenizer->token_id(parts_.special_tokens.eos);
    if (parts_.defaults.eos_ids.empty() && eos) parts_.defaults.eos_ids.push_back(*eos);
  }

  Result<RequestId> submit(GenerationRequest request, std::function<void(Chunk)> on_chunk) override;
  void cancel(RequestId id) override { parts_.engine->cancel(id); }
  Result<Response> generate(GenerationRequest request) override;

  Result<std::shared_ptr<const TokenGrammar>> compile_grammar(const GrammarSource& source) override {
    return grammars_.compile(static_cast<GrammarKind>(source.kind), source.text);
  }
  Result<std::string> render(const GenerationRequest& request) const override;
  Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special_tokens) const override {
    return parts_.tokenizer->encode(text, {.add_special_tokens = add_special_tokens});
  }
  Result<std::string> decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const override {
    return parts_.tokenizer->decode(ids, skip_special_tokens);
  }

  std::string token_bytes(std::int32_t id) const override;
  Result<std::vector<std::int32_t>> prompt_tokens(const GenerationRequest& request) const override;

  Engine& engine() override { return *parts_.engine; }
  std::string model_name() const override { return parts_.model_name; }
  std::string architecture() const override { return parts_.architecture; }
  std::string device() const override { return parts_.device; }
  std::string loading() const override { return parts_.loading; }
  std::vector<std::string> notes() const override { return parts_.notes; }

 private:
  GrammarTokens grammar_tokens() const;

  PipelineParts parts_;
  Grammars grammars_{[this] { return grammar_tokens(); }};
};

Result<std::string> TextPipeline::render(const GenerationRequest& request) const {
  if (request.prompt) {
    if (!request.messages.empty()) return invalid_argument("a request has messages or a prompt, not both");
    LANNER_RETURN_IF_ERROR(check_utf8(*request.prompt, "the prompt"));
    return *request.prompt;
  }
  if (request.messages.empty()) return invalid_argument("a request needs messages or a prompt");
  LANNER_ASSIGN_OR_RETURN(const ChatTemplateInputs inputs, template_inputs(request));
  return parts_.chat_template.render(inputs);
}

Result<std::vector<std::int32_t>> TextPipeline::prompt_tokens(const GenerationRequest& request) const {
  if (!request.prompt_ids.empty()) {
    if (request.prompt || !request.messages.empty()) {
      return invalid_argument("a request has token ids or text, not both");
    }
    return request.prompt_ids;
  }
  LANNER_ASSIGN_OR_RETURN(const std::string text, render(request));
  if (text.empty()) return invalid_argument("the prompt is empty");
  // Templates write special tokens as text, so the spelling of one becomes that token, in what users wrote too: as
  // everywhere in the field. A service that minds has to filter messages before they come here.
  LANNER_ASSIGN_OR_RETURN(auto ids, encode_prompt(*parts_.tokenizer, parts_.special_tokens, text));
  if (ids.empty()) return invalid_argument("the prompt has no tokens");
  return ids;
}

/// The byte of a piece like "<0xE4>".
std::optional<char> byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || !piece.ends_with('>')) return std::nullopt;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
  if (error != std::errc() || end != piece.data() + 5) return std::nullopt;
  return static_cast<char>(byte);
}

std::string TextPipeline::token_bytes(std::int32_t id) const {
  constexpr std::string_view kBlank = "\xE2\x96\x81";  // how SentencePiece spells a blank: U+2581
  const Tokenizer& tokenizer = *parts_.tokenizer;
  Result<std::string> piece = tokenizer.piece(id);
  if (!piece.ok()) return {};
  if (tokenizer.is_special(id)) return *piece;
  if (piece->find(kBlank) != std::string::npos) {  // a tokenizer that leaves out the blank in front of a text
    std::string bytes;
    for (std::string_view rest = *piece; !rest.empty();) {
      const bool blank = rest.starts_with(kBlank);
      bytes += blank ? ' ' : rest.front();
      rest.remove_prefix(blank ? kBlank.size() : 1);
    }
    return bytes;
  }
  const Result<std::string> text = tokenizer.decode({&id, 1}, /*skip_special_tokens=*/false);
  if (text.ok() && text->find("\xEF\xBF\xBD") == std::string::npos) return *text;
  // Alone, a part of a character is no text: its piece spells the bytes.
  if (const std::optional<char> byte = byte_of_piece(*piece)) return std::string(1, *byte);
  return read_spelled_bytes(*piece).value_or(text.ok() ? *text : std::string());
}

GrammarTokens TextPipeline::grammar_tokens() const {
  const auto count = static_cast<std::size_t>(parts_.engine->vocab_size());
  GrammarTokens made;
  made.tokens.resize(count);
  made.special.resize(count);
  const std::int32_t known = std::min(parts_.engine->vocab_size(), parts_.tokenizer->vocab_size());
  for (std::int32_t id = 0; id < known; ++id) {
    made.tokens[static_cast<std::size_t>(id)] = token_bytes(id);
    made.special[static_cast<std::size_t>(id)] = parts_.tokenizer->is_special(id);
  }
  made.ends = parts_.defaults.eos_ids;
  for (const std::string& word : parts_.chat_template.stop_words()) {
    const std::optional<std::int32_t> id = parts_.tokenizer->token_id(word);
    const bool ends = id && *id < known && parts_.tokenizer->is_special(*id);
    if (ends && std::ranges::find(made.ends, *id) == made.ends.end()) made.ends.push_back(*id);
  }
  return made;
}

Result<RequestId> TextPipeline::submit(GenerationRequest request, std::function<void(Chunk)> on_chunk) {
  const GenerationConfig& config = request.config;
  if (config.n < 1 || config.n > 128) return invalid_argument("n must be 1 to 128");
  Request inner;
  LANNER_ASSIGN_OR_RETURN(inner.prompt, prompt_tokens(request));
  LANNER_ASSIGN_OR_RETURN(StopRules stops, resolve_stops(config, parts_.defaults.eos_ids,
                                                         parts_.chat_template.stop_words(), *parts_.tokenizer));
  LANNER_ASSIGN_OR_RETURN(inner.bad_words, resolve_bad_words(config.bad_words, *parts_.tokenizer));
  inner.n = config.n;
  inner.sampling = resolve_sampling(config, parts_.defaults);
  inner.stop_ids = stops.ids;
  inner.grammar = std::move(request.grammar);
  inner.wants.logits = request.logits;
  // What the context has left bounds the answer; a prompt that leaves nothing is the engine's to refuse.
  const std::int64_t left = parts_.engine->session_len() - static_cast<std::int64_t>(inner.prompt.size());
  const auto cap = static_cast<std::int32_t>(std::max<std::int64_t>(left, 1));
  inner.max_new_tokens = std::min(config.max_new_tokens, cap);
  inner.min_new_tokens = std::min(config.min_new_tokens, cap);

  auto answer = std::make_shared<Answer>(AnswerSettings{.tokenizer = parts_.tokenizer,
                                                        .n = config.n,
                                                        .stop = std::move(stops.strings),
                                                        .stop_ids = std::move(stops.ids),
                                                        .skip_special_tokens = config.skip_special_tokens,
                                                        .include_stop = config.include_stop_str_in_output,
                                                        .logprobs = config.logprobs >= 0},
                                         std::move(on_chunk));
  inner.on_event = [answer = std::move(answer), engine = parts_.engine.get()](const Event& event) {
    if (answer->take(event)) engine->cancel(event.request);
  };
  return parts_.engine->submit(std::move(inner));
}

/// The chunks of one request put together, for a thread that waits.
struct Collector {
  std::mutex mutex;
  std::condition_variable done;
  bool final = false;
  Status status;
  Response response;

  void take(Chunk chunk) {
    const std::lock_guard lock(mutex);
    const auto at = static_cast<std::size_t>(chunk.choice);
    response.texts[at] += chunk.text;
    std::ranges::copy(chunk.token_ids, std::back_inserter(response.token_ids[at]));
    std::ranges::move(chunk.logprobs, std::back_inserter(response.logprobs[at]));
    if (!chunk.final) return;
    response.reasons = std::move(chunk.reasons);
    response.prompt_tokens = chunk.prompt_tokens;
    response.cached_tokens = chunk.cached_tokens;
    response.generated_tokens = chunk.generated_tokens;
    status = std::move(chunk.status);
    final = true;
    done.notify_all();
  }
};

Result<Response> TextPipeline::generate(GenerationRequest request) {
  const auto collector = std::make_shared<Collector>();
  const auto n = static_cast<std::size_t>(std::clamp(request.config.n, 1, 128));  // submit() refuses others
  collector->response.texts.resize(n);
  collector->response.token_ids.resize(n);
  collector->response.logprobs.resize(n);
  const Result<RequestId> id =
      submit(std::move(request), [collector](Chunk chunk) { collector->take(std::move(chunk)); });
  if (!id.ok()) return id.status();
  std::unique_lock lock(collector->mutex);
  collector->done.wait(lock, [&] { return collector->final; });
  if (!collector->status.ok()) return collector->status;
  return std::move(collector->response);
}

}  // namespace

std::unique_ptr<Pipeline> make_pipeline(PipelineParts parts) {
  return std::make_unique<TextPipeline>(std::move(parts));
}

}  // namespace lanner
