#pragma once
// For tests: a backend that answers late, as a device does that works behind the host. sample() gives nothing away;
// tokens come by collect(), and steps that name them meanwhile (ops::sampled_token) get them here.

#include <memory>

#include "ops/backend.h"

namespace lanner {

/// Of a backend that answers at once.
std::unique_ptr<ops::Backend> answering_late(std::unique_ptr<ops::Backend> inner);

}  // namespace lanner
