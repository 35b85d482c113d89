#include "model/safetensors_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "core/write_all.h"
#include "model/json_reader.h"

namespace lanner::model {
namespace {

constexpr std::size_t kAlignment = 8;  // of the tensors' bytes, as Hugging Face's own writer has it

/// Length and header.
std::string beginning(const std::vector<TensorHeader>& headers) {
  Json json = Json::object();
  json["__metadata__"] = {{"format", "pt"}};
  std::int64_t place = 0;
  for (const TensorHeader& header : headers) {
    json[header.name] = {
        {"dtype", header.dtype}, {"shape", header.shape}, {"data_offsets", {place, place + header.bytes}}};
    place += header.bytes;
  }
  std::string text = json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const auto length = static_cast<std::uint64_t>(text.size());
  std::string result(sizeof(length), '\0');
  std::memcpy(result.data(), &length, sizeof(length));
  return result + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path, std::string partial, int descriptor)
    : path_(std::move(path)), partial_(std::move(partial)), descriptor_(descriptor) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

Status SafetensorsWriter::failure(const char* action) const {
  const int error = errno;
  return {error == ENOSPC || error == EDQUOT ? StatusCode::kResourceExhausted : StatusCode::kIo,
          fmt::format("{}: cannot {}: {}", path_, action, std::strerror(error))};
}

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(const std::string& path,
                                                                     const std::vector<TensorHeader>& headers) {
  std::string partial = path + ".part";
  const int descriptor = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return io_error(fmt::format("{}: cannot create: {}", path, std::strerror(errno)));
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, std::move(partial), descriptor));
  for (const TensorHeader& header : headers) writer->missing_bytes_ += header.bytes;
  const std::string text = beginning(headers);
  LANNER_RETURN_IF_ERROR(writer->write_all(std::as_bytes(std::span(text))));
  return writer;
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  missing_bytes_ -= static_cast<std::int64_t>(bytes.size());
  LANNER_CHECK(missing_bytes_ >= 0);
  return write_all(bytes);
}

Status SafetensorsWriter::write_all(std::span<const std::byte> bytes) {
  return lanner::write_all(descriptor_, bytes) ? Status() : failure("write");
}

Status SafetensorsWriter::finish() {
  LANNER_CHECK(missing_bytes_ == 0);
  if (::fsync(descriptor_) != 0) return failure("write");
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0) {
    Status status = failure("write");
    ::unlink(partial_.c_str());
    return status;
  }
  return {};
}

}  // namespace lanner::model
