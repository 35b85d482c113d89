#pragma once
// The one place of this room that reads environment variables. Their names and meanings are those of huggingface_hub,
// of ModelScope's client and of LMDeploy, so that what a user has set up for them counts here.
//
//   HF_ENDPOINT                       the hub, https://huggingface.co
//   HF_HOME                           ~/.cache/huggingface; $XDG_CACHE_HOME/huggingface where that is set
//   HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE   $HF_HOME/hub
//   HF_TOKEN, HUGGING_FACE_HUB_TOKEN  the token; else the file HF_TOKEN_PATH, $HF_HOME/token
//   HF_HUB_DISABLE_IMPLICIT_TOKEN     no token is sent
//   HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE  1: nothing is fetched
//   HF_HUB_ETAG_TIMEOUT               seconds that an answer may take to begin, 10
//   HF_HUB_DOWNLOAD_TIMEOUT           seconds without a byte of a file, 10
//   LMDEPLOY_USE_MODELSCOPE           True: ModelScope takes the place of the Hugging Face hub
//   MODELSCOPE_DOMAIN                 www.modelscope.cn; with http:// or https:// in front it is a whole address
//   MODELSCOPE_CACHE                  ~/.cache/modelscope/hub
//   MODELSCOPE_API_TOKEN              the token for ModelScope
//   HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY  and their names in small letters, which win
//   LANNER_HUB_RETRIES                further attempts after a failure that may pass, 5
//   LANNER_HUB_RETRY_DELAY            seconds before the first of them, 1; it doubles each time
//
// SSL_CERT_FILE and SSL_CERT_DIR are read by OpenSSL.

#include <chrono>
#include <filesystem>
#include <string>

#include "lanner/status.h"
#include "net/url.h"

namespace lanner::net {

struct Environment {
  bool use_modelscope = false;
  bool offline = false;
  std::string endpoint;         // of the hub that counts, without a slash at its end
  std::string token;            // for that hub; empty for none
  std::filesystem::path cache;  // of that hub; empty when neither a variable nor HOME tells
  std::chrono::milliseconds head_timeout{10'000};
  std::chrono::milliseconds idle_timeout{10'000};
  ProxySettings proxies;
  int retries = 5;
  std::chrono::milliseconds retry_delay{1'000};
};

/// The seconds that a variable gives, 0.001 to 86,400; `result` stays where it is not set.
Status read_seconds(const char* name, std::chrono::milliseconds& result);

/// kInvalidArgument for a variable with a value that makes no sense; the token's own value is never part of a message.
Result<Environment> read_environment();

}  // namespace lanner::net
