// Shows what the checkpoint readers make of a model, for tests/model/test_checkpoints.py to hold against independent
// readers. Not installed.
//
//   checkpoint_probe PATH spec              one JSON object: configuration, decoder spec, generation defaults, texts
//   checkpoint_probe PATH values [FORMAT]   reads requests from standard input, one a line; FORMAT is that of
//                                           --model-format:
//                                      matrix NAME ROWS COLS HEADS    HEADS > 0: rows brought into plain rope order
//                                      vector NAME SIZE HEADS
//                                  and answers each with "ok COUNT FORMAT\n" and COUNT fp32 values as bytes, or
//                                  with "error CODE: MESSAGE\n"

#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/float16.h"
#include "model/checkpoint.h"
#include "model/decoder_config.h"
#include "model/generation_config.h"
#include "model/row_order.h"

namespace lanner::model {
namespace {

float dense_value(const ops::WeightSource& source, std::size_t index) {
  if (source.format == ops::WeightFormat::kF32) {
    float value = 0.0F;
    std::memcpy(&value, source.dense + 4 * index, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, source.dense + 2 * index, sizeof(bits));
  return source.format == ops::WeightFormat::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

/// The columns where the input has them.
std::vector<float> in_plain_order(std::vector<float> values, const ops::WeightSource& source) {
  if (source.input_order.empty()) return values;
  std::vector<float> result(values.size());
  const std::size_t cols = source.input_order.size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    result[i / cols * cols + static_cast<std::size_t>(source.input_order[i % cols])] = values[i];
  }
  return result;
}

std::vector<float> dequantize(const ops::WeightSource& source) {
  std::vector<float> values(static_cast<std::size_t>(source.rows * source.cols));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!ops::is_quantized(source.format)) {
      values[i] = dense_value(source, i);
      continue;
    }
    const std::size_t group = i / static_cast<std::size_t>(source.group);
    const int code = source.format == ops::WeightFormat::kInt8 ? static_cast<std::int8_t>(source.codes[i])
                                                               : static_cast<int>(source.codes[i]);
    values[i] = source.scales[group] * static_cast<float>(code);
    if (!source.offsets.empty()) values[i] += source.offsets[group];
  }
  return in_plain_order(std::move(values), source);
}

/// The rows of `heads` heads whose elements are all rotary pairs; as they lie where `heads` is 0.
std::vector<std::int64_t> plain_rows(std::int64_t rows, std::int64_t heads) {
  ProjectionSpec projection;
  projection.rows = rows;
  if (heads > 0) {
    projection.row_order = RowOrder::kPairwiseRope;
    projection.heads = heads;
    projection.rotary_dim = rows / heads;
  }
  return rows_in_tensor(projection);
}

struct Answer {
  std::vector<float> values;
  std::string_view format;
};

Result<Answer> answer(const Checkpoint& checkpoint, const std::string& request) {
  std::istringstream words(request);
  std::string kind, name;
  std::int64_t rows = 0, cols = 0, heads = 0;
  words >> kind >> name >> rows;
  if (kind == "vector") {
    words >> heads;
    LANNER_ASSIGN_OR_RETURN(auto values, checkpoint.vector(name, rows));
    values = gather_rows(values, plain_rows(rows, heads));
    return Answer{std::move(values), "float32"};
  }
  words >> cols >> heads;
  if (kind != "matrix" || !words) return invalid_argument("what is '" + request + "'?");
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(name, rows, cols));
  LANNER_ASSIGN_OR_RETURN(auto source, checkpoint.matrix(name, rows, cols));
  source = gather_rows(source, plain_rows(rows, heads));
  return Answer{dequantize(source), ops::weight_format_name(source.format)};
}

void serve_values(const Checkpoint& checkpoint) {
  for (std::string line; std::getline(std::cin, line);) {
    const Result<Answer> result = answer(checkpoint, line);
    if (result.ok()) {
      std::cout << fmt::format("ok {} {}\n", result->values.size(), result->format);
      std::cout.write(reinterpret_cast<const char*>(result->values.data()),
                      static_cast<std::streamsize>(result->values.size() * sizeof(float)));
    } else {
      std::cout << fmt::format("error {}: {}\n", status_code_name(result.status().code()), result.status().message());
    }
    std::cout.flush();
  }
}

Json projection_json(const ProjectionSpec& projection) {
  return {{"weight", projection.weight},
          {"bias", projection.bias},
          {"rows", projection.rows},
          {"cols", projection.cols},
          {"pairwise", projection.row_order == RowOrder::kPairwiseRope},
          {"heads", projection.heads}};
}

Json spec_json(const DecoderSpec& spec) {
  Json json{{"architecture", spec.architecture},
            {"vocab", spec.vocab},
            {"hidden", spec.hidden},
            {"intermediate", spec.intermediate},
            {"heads", spec.heads},
            {"kv_heads", spec.kv_heads},
            {"head_dim", spec.head_dim},
            {"max_position", spec.max_position},
            {"norm_eps", spec.norm_eps},
            {"embedding", spec.embedding},
            {"final_norm", spec.final_norm.weight},
            {"head", spec.head},
            {"rope_theta", spec.ropes.empty() ? 0.0 : spec.ropes.front().theta}};
  json["layers"] = Json::array();
  for (const LayerSpec& layer : spec.layers) {
    Json& entry = json["layers"].emplace_back(Json::object());
    entry["norms"] = {layer.attention_norm.weight, layer.mlp_norm.weight};
    for (const ProjectionSpec* projection :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      entry["projections"].push_back(projection_json(*projection));
    }
  }
  return json;
}

Status print_spec(const Checkpoint& checkpoint) {
  LANNER_ASSIGN_OR_RETURN(const DecoderSpec spec, read_decoder_spec(checkpoint));
  LANNER_ASSIGN_OR_RETURN(const GenerationDefaults defaults, read_generation_defaults(checkpoint));
  const SpecialTokens tokens = checkpoint.special_tokens();
  Json json{{"config", checkpoint.config()},
            {"spec", spec_json(spec)},
            {"eos_ids", defaults.eos_ids},
            {"tensor_bytes", checkpoint.tensor_bytes()},
            {"bos", tokens.bos},
            {"eos", tokens.eos},
            {"unk", tokens.unk},
            {"pad", tokens.pad}};
  json["chat_template"] = checkpoint.chat_template().value_or("");
  LANNER_ASSIGN_OR_RETURN(const auto tokenizer, checkpoint.tokenizer());
  json["tokenizer_size"] = tokenizer->vocab_size();
  std::cout << json.dump() << '\n';
  return {};
}

Result<std::shared_ptr<const Checkpoint>> open(const std::string& path, const std::string& format) {
  CheckpointOptions options;
  LANNER_ASSIGN_OR_RETURN(options.format, model_format(format));
  return open_checkpoint(path, options);
}

int run(const std::string& path, const std::string& mode, const std::string& format) {
  const auto checkpoint = open(path, format);
  Status status = checkpoint.status();
  if (status.ok() && mode == "spec") status = print_spec(**checkpoint);
  if (status.ok() && mode == "values") serve_values(**checkpoint);
  if (status.ok()) return 0;
  std::cerr << "error " << status_code_name(status.code()) << ": " << status.message() << '\n';
  return 1;
}

}  // namespace
}  // namespace lanner::model

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::cerr << "usage: checkpoint_probe PATH spec|values [FORMAT]\n";
    return 2;
  }
  try {
    return lanner::model::run(argv[1], argv[2], argc == 4 ? argv[3] : "");
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
