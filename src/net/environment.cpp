#include "net/environment.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <system_error>

#include "core/mapped_file.h"
#include "core/user_folders.h"

namespace lanner::net {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxTokenBytes = 4096;
constexpr double kMaxTimeoutSeconds = 86'400;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string first_of(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (std::string value = variable(name); !value.empty()) return value;
  }
  return {};
}

/// As huggingface_hub reads a switch.
bool is_true(std::string value) {
  std::ranges::transform(value, value.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c; });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

Status read_retries(int& retries) {
  const std::string text = variable("LANNER_HUB_RETRIES");
  if (text.empty()) return {};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), retries);
  if (error != std::errc() || end != text.data() + text.size() || retries < 0 || retries > 1000) {
    return invalid_argument("LANNER_HUB_RETRIES: is no number from 0 to 1000");
  }
  return {};
}

/// A folder that a user named, with a "~" at its front.
fs::path expanded(const std::string& text) {
  if (text != "~" && !text.starts_with("~/")) return text;
  const std::string home = variable("HOME");
  return home.empty() ? fs::path() : fs::path(home) / text.substr(std::min<std::size_t>(2, text.size()));
}

fs::path hugging_face_home() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) return expanded(home);
  const fs::path cache = user_cache_folder();
  return cache.empty() ? cache : cache / "huggingface";
}

std::string trimmed(std::string text) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\r'; });
  text.erase(text.find_last_not_of(" \t") + 1);
  return text.substr(std::min(text.find_first_not_of(" \t"), text.size()));
}

/// The token of the variables, else of the file that `hf auth login` writes; a file that is not there is none.
Result<std::string> hugging_face_token() {
  if (is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return std::string();
  if (std::string token = trimmed(first_of({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})); !token.empty()) return token;
  const std::string named = variable("HF_TOKEN_PATH");
  const fs::path home = hugging_face_home();
  if (named.empty() && home.empty()) return std::string();
  const fs::path path = named.empty() ? home / "token" : expanded(named);
  Result<std::string> text = read_file(path.string(), kMaxTokenBytes);
  if (text.ok()) return trimmed(*std::move(text));
  if (text.status().code() == StatusCode::kNotFound) return std::string();
  return text.status();
}

Status check_token(const std::string& token) {
  if (std::ranges::all_of(token, [](char c) { return c > ' ' && c < 127; })) return {};
  return invalid_argument("the hub's token holds characters that no token has (HF_TOKEN, or the token file)");
}

Status check_endpoint(std::string& endpoint, const char* name) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  const Result<Url> url = parse_url(endpoint);
  if (!url.ok()) return with_context(url.status(), name);
  if (url->target.find('?') != std::string::npos) return invalid_argument(fmt::format("{}: holds a query", name));
  return {};
}

Status read_modelscope(Environment& environment) {
  const std::string domain = variable("MODELSCOPE_DOMAIN");
  const bool whole = domain.starts_with("https://") || domain.starts_with("http://");
  environment.endpoint = whole ? domain : "https://" + (domain.empty() ? "www.modelscope.cn" : domain);
  environment.token = trimmed(variable("MODELSCOPE_API_TOKEN"));
  const std::string cache = variable("MODELSCOPE_CACHE");
  const fs::path home = expanded("~");
  if (!cache.empty()) {
    environment.cache = expanded(cache) / "models";
  } else if (!home.empty()) {
    environment.cache = home / ".cache/modelscope/hub/models";
  }
  return check_endpoint(environment.endpoint, "MODELSCOPE_DOMAIN");
}

Status read_hugging_face(Environment& environment) {
  environment.endpoint = variable("HF_ENDPOINT");
  if (environment.endpoint.empty()) environment.endpoint = "https://huggingface.co";
  LANNER_ASSIGN_OR_RETURN(environment.token, hugging_face_token());
  const std::string cache = first_of({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  const fs::path home = hugging_face_home();
  if (!cache.empty()) {
    environment.cache = expanded(cache);
  } else if (!home.empty()) {
    environment.cache = home / "hub";
  }
  return check_endpoint(environment.endpoint, "HF_ENDPOINT");
}

}  // namespace

Status read_seconds(const char* name, std::chrono::milliseconds& result) {
  const std::string text = variable(name);
  if (text.empty()) return {};
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  const bool number = error == std::errc() && end == text.data() + text.size();
  if (!number || !(seconds >= 0.001 && seconds <= kMaxTimeoutSeconds)) {
    return invalid_argument(fmt::format("{}: is no number of seconds", name));
  }
  result = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  return {};
}

Result<Environment> read_environment() {
  Environment environment;
  environment.use_modelscope = is_true(variable("LMDEPLOY_USE_MODELSCOPE"));
  environment.offline = is_true(first_of({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));
  LANNER_RETURN_IF_ERROR(environment.use_modelscope ? read_modelscope(environment) : read_hugging_face(environment));
  LANNER_RETURN_IF_ERROR(check_token(environment.token));
  LANNER_RETURN_IF_ERROR(read_seconds("HF_HUB_ETAG_TIMEOUT", environment.head_timeout));
  LANNER_RETURN_IF_ERROR(read_seconds("HF_HUB_DOWNLOAD_TIMEOUT", environment.idle_timeout));
  LANNER_RETURN_IF_ERROR(read_seconds("LANNER_HUB_RETRY_DELAY", environment.retry_delay));
  LANNER_RETURN_IF_ERROR(read_retries(environment.retries));
  environment.proxies.https = first_of({"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"});
  environment.proxies.http = first_of({"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"});
  environment.proxies.exceptions = first_of({"no_proxy", "NO_PROXY"});
  return environment;
}

}  // namespace lanner::net
