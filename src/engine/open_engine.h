#pragma once
// From a checkpoint to a running engine.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/numa.h"
#include "lanner/engine.h"
#include "model/checkpoint.h"
#include "ops/backend.h"

namespace lanner {

struct OpenedEngine {
  std::unique_ptr<Engine> engine;
  std::string architecture;        // such as LlamaForCausalLM
  std::string device;              // such as "cpu avx512, 2 threads"
  std::string loading;             // what it took, see Pipeline::loading()
  Device ran_on = Device::kCpu;    // kCpu or kCuda
  std::vector<std::string> notes;  // what the user should know, a line each
};

inline constexpr std::int32_t kMostSequences = 4096;  // max_batch_size at most

/// What the caller's users call an option: "max_batch_size" to "--max-batch-size".
using OptionName = std::function<std::string(std::string_view option)>;

/// Refuses numbers out of range, as open_engine() does before all else; an empty `name_of` leaves the names.
Status check_options(const EngineOptions& options, const OptionName& name_of);

/// As `policy` says, for what this thread allocates as long as the result lives; nothing: as the system does. `notes`
/// gets a line where that changes nothing. kUnsupported where the system does not let this process choose.
Result<std::optional<InterleavedMemory>> begin_numa(NumaPolicy policy, std::vector<std::string>& notes);

/// Starts the device, which takes some tenths of a second, while its owner opens files; of no account where it cannot.
class DeviceWarmUp {
 public:
  explicit DeviceWarmUp(Device device);
  ~DeviceWarmUp();
  DeviceWarmUp(const DeviceWarmUp&) = delete;
  DeviceWarmUp& operator=(const DeviceWarmUp&) = delete;

 private:
  std::thread thread_;
};

/// For tests: puts something between the engine and its device.
using WrapBackend = std::function<std::unique_ptr<ops::Backend>(std::unique_ptr<ops::Backend>)>;

/// Checks the configuration, loads the weights, plans and reserves memory, starts the engine's thread.
/// `progress` (may be empty) is called on this thread with the share of the weights that is loaded.
/// kResourceExhausted, with what is needed and what is free, when memory does not suffice.
Result<OpenedEngine> open_engine(std::shared_ptr<const model::Checkpoint> checkpoint, const EngineOptions& options,
                                 const std::function<void(double)>& progress, const WrapBackend& wrap = nullptr);

}  // namespace lanner
