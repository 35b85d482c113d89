#include "text/tokenizer_rules.h"

#include <algorithm>

namespace lanner {

void TextEnds::put_around(std::vector<std::int32_t>& ids) const {
  const bool there = prefix_ids.size() > 1 && ids.size() >= prefix_ids.size() &&
                     std::equal(prefix_ids.begin(), prefix_ids.end(), ids.begin());
  if (!there) ids.insert(ids.begin(), prefix_ids.begin(), prefix_ids.end());
  ids.insert(ids.end(), suffix_ids.begin(), suffix_ids.end());
}

}  // namespace lanner
