#pragma once
// A pipeline that can give its memory back and come again: weights and KV cache go when it falls asleep, and the model
// is opened anew when it wakes. While it sleeps, whatever needs the model is refused with kConflict.
//
//   SleepingPipeline pipeline(std::move(opened), [=] { return Pipeline::open(path, options); });
//   pipeline.sleep();   // what is under way ends with kAbort
//   pipeline.wake();
//
// Ids of requests differ over all times that it was awake, and counters go on where they stood.
//
// Threads: as Pipeline; sleep() and wake() from any thread but the engine's own.

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lanner/pipeline.h"

namespace lanner::server {

class SleepingPipeline final : public Pipeline {
 public:
  using Open = std::function<Result<std::unique_ptr<Pipeline>>()>;

  SleepingPipeline(std::unique_ptr<Pipeline> awake, Open open);
  ~SleepingPipeline() override;
  SleepingPipeline(const SleepingPipeline&) = delete;
  SleepingPipeline& operator=(const SleepingPipeline&) = delete;

  /// Returns once the memory is free. Does nothing when it sleeps already.
  void sleep();
  /// As open() fails; it goes on sleeping then. Does nothing when it is awake.
  Status wake();
  bool asleep() const;

  Result<RequestId> submit(GenerationRequest request, std::function<void(Chunk)> on_chunk) override;
  void cancel(RequestId id) override;
  Result<Response> generate(GenerationRequest request) override;
  Result<std::shared_ptr<const TokenGrammar>> compile_grammar(const GrammarSource& source) override;
  Result<std::string> render(const GenerationRequest& request) const override;
  Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special_tokens) const override;
  Result<std::string> decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const override;
  std::string token_bytes(std::int32_t id) const override;
  Result<std::vector<std::int32_t>> prompt_tokens(const GenerationRequest& request) const override;
  Engine& engine() override;
  std::string model_name() const override { return model_name_; }
  std::string architecture() const override { return architecture_; }
  std::string device() const override { return device_; }
  std::string loading() const override;
  std::vector<std::string> notes() const override;

 private:
  class EngineDoor;
  /// The pipeline that is awake, with what is added to its ids; it must not be held for long.
  struct Awake {
    std::shared_ptr<Pipeline> pipeline;
    RequestId first_id = 0;
  };
  Awake awake() const;

  const Open open_;
  const std::string model_name_;
  const std::string architecture_;
  const std::string device_;
  const std::unique_ptr<EngineDoor> engine_;

  std::mutex changing_;                 // one sleep() or wake() at a time; before mutex_
  mutable std::mutex mutex_;            // guards all below
  std::shared_ptr<Pipeline> pipeline_;  // null while it sleeps
  RequestId first_id_ = 0;
};

}  // namespace lanner::server
