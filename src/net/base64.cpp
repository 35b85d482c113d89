#include "net/base64.h"

#include <openssl/evp.h>

#include <vector>

namespace lanner::net {

std::string base64(std::string_view bytes) {
  std::vector<unsigned char> encoded((bytes.size() + 2) / 3 * 4 + 1);
  const int size = EVP_EncodeBlock(encoded.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  return {encoded.begin(), encoded.begin() + size};
}

}  // namespace lanner::net
