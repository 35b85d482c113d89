#pragma once
// Where a user's files belong, by the XDG base directory specification. As it demands, and as
// scripts/fetch_default_model.py does, a path that is not absolute is passed over as if it were not set; so is such a
// HOME. Nothing is created, and the folders need not exist. The environment is read anew in each call.

#include <filesystem>
#include <vector>

namespace lanner {

/// $XDG_CACHE_HOME, else ~/.cache; empty where HOME is missing too.
std::filesystem::path user_cache_folder();
/// $XDG_STATE_HOME, else ~/.local/state; empty where HOME is missing too.
std::filesystem::path user_state_folder();
/// $XDG_DATA_HOME, else ~/.local/share; empty where HOME is missing too.
std::filesystem::path user_data_folder();
/// $XDG_DATA_DIRS, else /usr/local/share and /usr/share; the first one counts most.
std::vector<std::filesystem::path> shared_data_folders();

}  // namespace lanner
