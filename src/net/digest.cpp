#include "net/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/check.h"

namespace lanner::net {

struct Digest::State {
  struct Free {
    void operator()(EVP_MD_CTX* freed) const { EVP_MD_CTX_free(freed); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context{EVP_MD_CTX_new()};
};

Digest::Digest(std::unique_ptr<State> state) : state_(std::move(state)) {}
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;
Digest::~Digest() = default;

Result<Digest> Digest::for_name(std::string_view name, std::int64_t size) {
  if (!is_digest_name(name)) return invalid_argument("a checksum is neither SHA-1 nor SHA-256");
  auto state = std::make_unique<State>();
  const EVP_MD* kind = name.size() == 64 ? EVP_sha256() : EVP_sha1();
  if (state->context == nullptr || EVP_DigestInit_ex(state->context.get(), kind, nullptr) != 1) {
    return unsupported("this system's OpenSSL does not offer SHA-1 or SHA-256");
  }
  Digest digest(std::move(state));
  if (name.size() == 40) {
    const std::string prefix = fmt::format("blob {}", size);
    digest.add(std::string_view(prefix.c_str(), prefix.size() + 1));  // with the NUL
  }
  return digest;
}

void Digest::add(std::string_view bytes) {
  LANNER_CHECK(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1);
}

std::string Digest::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  LANNER_CHECK(EVP_DigestFinal_ex(state_->context.get(), bytes.data(), &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes.at(i));
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  constexpr std::size_t kDigits = 64;
  Result<Digest> digest = Digest::for_name(std::string(kDigits, '0'), static_cast<std::int64_t>(bytes.size()));
  LANNER_CHECK(digest.ok());
  digest->add(bytes);
  return digest->finish();
}

bool is_digest_name(std::string_view text) {
  return (text.size() == 40 || text.size() == 64) &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace lanner::net
