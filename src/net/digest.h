#pragma once
// The checksums that hubs publish: SHA-256 of a large file, and Git's name of a small one.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::net {

class Digest {
 public:
  /// For `name` in hexadecimal: 64 digits are the SHA-256 of the content, 40 the SHA-1 of Git's blob, which begins with
  /// the content's size. kInvalidArgument for anything else.
  static Result<Digest> for_name(std::string_view name, std::int64_t size);

  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;
  ~Digest();

  void add(std::string_view bytes);
  /// The digest in hexadecimal, small letters. Call it once, at the end.
  std::string finish();

 private:
  struct State;
  explicit Digest(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The SHA-256 of these bytes, as finish() writes it.
std::string sha256_hex(std::string_view bytes);

/// Whether `text` is 40 or 64 hexadecimal digits in small letters: then it is safe as a file's name, too.
bool is_digest_name(std::string_view text);

}  // namespace lanner::net
