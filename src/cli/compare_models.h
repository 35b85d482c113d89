#pragma once
// Two models on one text, for `lanner eval compare` and the report of `lanner lite`: the same figures by the same code.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/engine_flags.h"
#include "eval/comparison.h"
#include "lanner/pipeline.h"
#include "lanner/status.h"

namespace lanner::cli {

struct CompareOptions {
  EngineFlags reference;
  EngineFlags test;
  std::string dataset = "wikitext2";
  std::int64_t seqlen = 1024;
  std::int64_t max_windows = 0;  // 0: all
};

struct ComparedModels {
  std::unique_ptr<Pipeline> reference;
  std::unique_ptr<Pipeline> test;
  PipelineOptions test_options;
  std::int64_t text_tokens = 0;
  eval::Comparison figures;
};

/// One window after the other: nothing is shared, nothing runs beside it, and the KV cache holds one window.
PipelineOptions for_windows(PipelineOptions options, std::int64_t seqlen);

/// Opens both and compares them, with a progress bar. kInvalidArgument where they cut the text into different tokens.
Result<ComparedModels> compare_models(const CompareOptions& options);

/// The lines that `lanner eval compare` prints.
std::string comparison_table(const CompareOptions& options, const ComparedModels& models);

}  // namespace lanner::cli
