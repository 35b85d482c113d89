#pragma once
// Hand-made checkpoint files for tests, right or deliberately wrong.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

namespace lanner::model {

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <typename T>
void append(std::string& file, T value) {
  file.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

/// A safetensors file with this header text and this many bytes of tensors.
inline std::string safetensors_file(std::string_view header, std::size_t data_bytes) {
  std::string file;
  append(file, static_cast<std::uint64_t>(header.size()));
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file.push_back(static_cast<char>(i & 0x3FU));
  return file;
}

/// A GGUF file. What add_* took is in the order of the calls; members may be set to wrong values.
class GgufBuilder {
 public:
  std::uint32_t magic = 0x46554747U;
  std::uint32_t version = 3;
  std::uint64_t metadata_count = 0;
  std::uint64_t tensor_count = 0;
  std::uint64_t alignment = 32;

  static constexpr std::uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kString = 8, kArray = 9;

  void add_key(std::string_view key, std::uint32_t type) {
    ++metadata_count;
    append_string(metadata_, key);
    append(metadata_, type);
  }
  void add_u32(std::string_view key, std::uint32_t value) {
    add_key(key, kU32);
    append(metadata_, value);
  }
  void add_f32(std::string_view key, float value) {
    add_key(key, kF32);
    append(metadata_, value);
  }
  void add_string(std::string_view key, std::string_view value) {
    add_key(key, kString);
    append_string(metadata_, value);
  }
  void add_strings(std::string_view key, const std::vector<std::string>& values) {
    add_key(key, kArray);
    append(metadata_, kString);
    append(metadata_, static_cast<std::uint64_t>(values.size()));
    for (const std::string& value : values) append_string(metadata_, value);
  }
  void add_integers(std::string_view key, const std::vector<std::int32_t>& values) {
    add_key(key, kArray);
    append(metadata_, kI32);
    append(metadata_, static_cast<std::uint64_t>(values.size()));
    for (const std::int32_t value : values) append(metadata_, value);
  }
  /// Bytes behind the last key, whatever they are.
  void add_raw(std::string_view bytes) { metadata_ += bytes; }

  /// `dimensions` as in the file: the row length first.
  void add_table_row(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                     std::uint64_t offset) {
    ++tensor_count;
    append_string(table_, name);
    append(table_, static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t size : dimensions) append(table_, size);
    append(table_, type);
    append(table_, offset);
  }
  /// A row of the table, and its bytes behind those of the tensors before it.
  void add_tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                  std::string_view bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    add_table_row(name, dimensions, type, data_.size());
    data_ += bytes;
  }
  void add_data(std::size_t bytes) { data_.resize(data_.size() + bytes); }

  std::string file() const {
    std::string file;
    append(file, magic);
    append(file, version);
    append(file, tensor_count);
    append(file, metadata_count);
    file += metadata_ + table_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

 private:
  static void append_string(std::string& out, std::string_view text) {
    append(out, static_cast<std::uint64_t>(text.size()));
    out += text;
  }

  std::string metadata_, table_, data_;
};

/// A Llama of one layer in GGUF: hidden 32, 2 heads of 16, 1 key-value head, MLP 64, `tokens` of vocabulary.
inline GgufBuilder small_llama_gguf(const std::vector<std::string>& tokens) {
  GgufBuilder gguf;
  gguf.add_string("general.architecture", "llama");
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::uint32_t>>{{"block_count", 1},
                                                                                     {"embedding_length", 32},
                                                                                     {"feed_forward_length", 64},
                                                                                     {"attention.head_count", 2},
                                                                                     {"attention.head_count_kv", 1},
                                                                                     {"context_length", 128},
                                                                                     {"rope.dimension_count", 16}}) {
    gguf.add_u32("llama." + key, value);
  }
  gguf.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  gguf.add_f32("llama.rope.freq_base", 500000.0F);
  gguf.add_string("tokenizer.ggml.model", "gpt2");
  gguf.add_string("tokenizer.ggml.pre", "default");
  gguf.add_strings("tokenizer.ggml.tokens", tokens);
  gguf.add_strings("tokenizer.ggml.merges", {});
  const std::uint64_t vocab = tokens.size();
  const auto add = [&gguf](const std::string& name, const std::vector<std::uint64_t>& dimensions) {
    std::uint64_t elements = 1;
    for (const std::uint64_t size : dimensions) elements *= size;
    gguf.add_tensor(name, dimensions, 0, std::string(4 * elements, '\0'));
  };
  add("token_embd.weight", {32, vocab});
  add("output_norm.weight", {32});
  add("blk.0.attn_norm.weight", {32});
  add("blk.0.ffn_norm.weight", {32});
  add("blk.0.attn_q.weight", {32, 32});
  add("blk.0.attn_k.weight", {32, 16});
  add("blk.0.attn_v.weight", {32, 16});
  add("blk.0.attn_output.weight", {32, 32});
  add("blk.0.ffn_gate.weight", {32, 64});
  add("blk.0.ffn_up.weight", {32, 64});
  add("blk.0.ffn_down.weight", {64, 32});
  return gguf;
}

/// A folder that lives as long as this.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lanner_model_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& name, std::string_view content) const {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
  }

 private:
  std::string path_;
};

}  // namespace lanner::model
