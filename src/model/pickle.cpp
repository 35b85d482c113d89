#include "model/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>

#include "model/json_reader.h"
#include "model/stored_tensor.h"

namespace lanner::model {
namespace {

constexpr std::size_t kMaxPickleBytes = 64 << 20;
constexpr std::size_t kMaxValues = 2'000'000;  // of each: values, elements of tuples and dicts, the stack, the memo
constexpr std::size_t kMaxMarks = 64;
constexpr std::size_t kMaxGlobalName = 128;

/// The names that a pickle may import.
enum class Global : std::uint8_t { kOrderedDict, kTensorV2, kTensorV3, kParameter, kStorageType, kDtype };

struct GlobalName {
  std::string_view module;
  std::string_view name;
  Global global;
  std::string_view dtype;  // as safetensors spells it
};

constexpr std::array<GlobalName, 20> kGlobals{{
    {"collections", "OrderedDict", Global::kOrderedDict, ""},
    {"torch._utils", "_rebuild_tensor_v2", Global::kTensorV2, ""},
    {"torch._utils", "_rebuild_tensor_v3", Global::kTensorV3, ""},
    {"torch._utils", "_rebuild_parameter", Global::kParameter, ""},
    {"torch.storage", "UntypedStorage", Global::kStorageType, ""},
    {"torch", "DoubleStorage", Global::kStorageType, "F64"},
    {"torch", "FloatStorage", Global::kStorageType, "F32"},
    {"torch", "HalfStorage", Global::kStorageType, "F16"},
    {"torch", "BFloat16Storage", Global::kStorageType, "BF16"},
    {"torch", "LongStorage", Global::kStorageType, "I64"},
    {"torch", "IntStorage", Global::kStorageType, "I32"},
    {"torch", "ShortStorage", Global::kStorageType, "I16"},
    {"torch", "CharStorage", Global::kStorageType, "I8"},
    {"torch", "ByteStorage", Global::kStorageType, "U8"},
    {"torch", "BoolStorage", Global::kStorageType, "BOOL"},
    {"torch", "float8_e4m3fn", Global::kDtype, "F8_E4M3"},
    {"torch", "float8_e5m2", Global::kDtype, "F8_E5M2"},
    {"torch", "uint16", Global::kDtype, "U16"},
    {"torch", "uint32", Global::kDtype, "U32"},
    {"torch", "uint64", Global::kDtype, "U64"},
}};

enum class Kind : std::uint8_t { kNone, kBoolean, kInteger, kText, kTuple, kDict, kGlobal, kStorage, kTensor };

using Id = std::uint32_t;  // of a value, in values_

struct Value {
  Kind kind = Kind::kNone;
  bool ordered = false;        // a dict: an OrderedDict
  std::int64_t number = 0;     // a boolean, an integer; else an index into the list of its kind; a tuple: of items_
  std::int64_t count = 0;      // a tuple: of its elements
  std::string_view text = {};  // a text
};

class Machine {
 public:
  Machine(std::span<const std::byte> pickle, std::string_view where) : pickle_(pickle), where_(where) {}

  Result<std::vector<PickledTensor>> run() {
    if (pickle_.size() > kMaxPickleBytes) {
      return resource_exhausted(
          fmt::format("{}: a pickle of {} bytes, more than {}", where_, pickle_.size(), kMaxPickleBytes));
    }
    while (!stopped_) {
      instruction_ = place_;
      LANNER_ASSIGN_OR_RETURN(const auto code, take(1));
      opcode_ = static_cast<std::uint8_t>(code[0]);
      LANNER_RETURN_IF_ERROR(step());
      if (std::max({values_.size(), items_.size(), stack_.size(), memo_.size(), dict_items_}) > kMaxValues) {
        return resource_exhausted(fmt::format("{}: a pickle of more than {} values", where_, kMaxValues));
      }
    }
    if (place_ != pickle_.size()) return wrong("there are bytes behind it");
    return result();
  }

 private:
  // Failures name the instruction and where it is.
  std::string here() const {
    return fmt::format("{}: pickle instruction {} at byte {}", where_, pickle_opcode_name(opcode_), instruction_);
  }
  Status wrong(std::string_view why) const { return corrupt(fmt::format("{}: {}", here(), why)); }
  Status refuse(std::string_view why) const { return unsupported(fmt::format("{}: {}", here(), why)); }

  Result<std::span<const std::byte>> take(std::size_t bytes) {
    if (pickle_.size() - place_ < bytes) return wrong("the pickle ends within it");
    const auto taken = pickle_.subspan(place_, bytes);
    place_ += bytes;
    return taken;
  }

  template <typename T>
  Result<T> take_number() {
    LANNER_ASSIGN_OR_RETURN(const auto bytes, take(sizeof(T)));
    T number{};
    std::memcpy(&number, bytes.data(), sizeof(number));
    return number;
  }

  Result<std::string_view> take_text(std::size_t bytes) {
    LANNER_ASSIGN_OR_RETURN(const auto taken, take(bytes));
    return std::string_view(reinterpret_cast<const char*>(taken.data()), taken.size());
  }

  Result<std::string_view> take_line() {
    const auto rest = pickle_.subspan(place_, std::min(pickle_.size() - place_, kMaxGlobalName));
    const auto end = std::ranges::find(rest, std::byte{'\n'});
    if (end == rest.end()) return refuse("a name without an end, or too long");
    const auto bytes = static_cast<std::size_t>(end - rest.begin());
    LANNER_ASSIGN_OR_RETURN(const std::string_view line, take_text(bytes));
    ++place_;
    return line;
  }

  Status push(const Value& value) {
    values_.push_back(value);
    stack_.push_back(static_cast<Id>(values_.size() - 1));
    return {};
  }

  const Value& value(Id id) const { return values_[id]; }
  /// The elements of a tuple; nothing for another kind.
  std::span<const Id> elements(Id id) const {
    const Value& tuple = value(id);
    if (tuple.kind != Kind::kTuple) return {};
    return std::span(items_).subspan(static_cast<std::size_t>(tuple.number), static_cast<std::size_t>(tuple.count));
  }

  /// The number of values above the last mark that instructions may take.
  std::size_t above_mark() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  Result<Id> pop() {
    if (above_mark() == 0) return wrong("the stack is empty");
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }

  /// The last `count` values; there are as many.
  std::vector<Id> take_top(std::size_t count) {
    std::vector<Id> taken(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return taken;
  }

  /// Everything above the last mark, which goes too.
  Result<std::vector<Id>> pop_mark() {
    if (marks_.empty()) return wrong("there is no mark");
    std::vector<Id> taken = take_top(above_mark());
    marks_.pop_back();
    return taken;
  }

  Status step() {
    switch (opcode_) {
      case 0x80: return protocol();  // PROTO
      case '.': stopped_ = true; return {};
      case 'N': return push({.kind = Kind::kNone});
      case 0x88: return push({.kind = Kind::kBoolean, .number = 1});
      case 0x89: return push({.kind = Kind::kBoolean, .number = 0});
      case 'J': return integer<std::int32_t>();
      case 'K': return integer<std::uint8_t>();
      case 'M': return integer<std::uint16_t>();
      case 0x8A: return long_integer();
      case 'X': return text();
      case 'q': return put<std::uint8_t>();
      case 'r': return put<std::uint32_t>();
      case 'h': return get<std::uint8_t>();
      case 'j': return get<std::uint32_t>();
      case '(': return mark();
      case ')': return tuple(0);
      case 0x85: return tuple(1);
      case 0x86: return tuple(2);
      case 0x87: return tuple(3);
      case 't': return marked_tuple();
      case '}': return dict(/*ordered=*/false);
      case 's': return set_item();
      case 'u': return set_items();
      case 'c': return global();
      case 'Q': return storage();
      case 'R': return reduce();
      case 'b': return build();
      default: return refuse("is not one that a table of tensors needs; nothing was run");
    }
  }

  Status protocol() {
    LANNER_ASSIGN_OR_RETURN(const auto version, take_number<std::uint8_t>());
    if (instruction_ != 0) return wrong("is not the first");
    if (version != 2) return refuse(fmt::format("protocol {}; only 2, that of torch.save, can be read", version));
    return {};
  }

  template <typename T>
  Status integer() {
    LANNER_ASSIGN_OR_RETURN(const T number, take_number<T>());
    return push({.kind = Kind::kInteger, .number = number});
  }

  Status long_integer() {
    LANNER_ASSIGN_OR_RETURN(const auto bytes, take_number<std::uint8_t>());
    if (bytes > sizeof(std::int64_t)) return refuse(fmt::format("an integer of {} bytes", bytes));
    LANNER_ASSIGN_OR_RETURN(const auto digits, take(bytes));
    const bool negative = bytes > 0 && (digits[bytes - 1U] & std::byte{0x80}) != std::byte{0};
    std::int64_t number = negative ? -1 : 0;
    std::memcpy(&number, digits.data(), bytes);
    return push({.kind = Kind::kInteger, .number = number});
  }

  Status text() {
    LANNER_ASSIGN_OR_RETURN(const auto bytes, take_number<std::uint32_t>());
    LANNER_ASSIGN_OR_RETURN(const std::string_view text, take_text(bytes));
    return push({.kind = Kind::kText, .text = text});
  }

  template <typename T>
  Status put() {
    LANNER_ASSIGN_OR_RETURN(const T key, take_number<T>());
    if (above_mark() == 0) return wrong("the stack is empty");
    memo_.insert_or_assign(key, stack_.back());
    return {};
  }

  template <typename T>
  Status get() {
    LANNER_ASSIGN_OR_RETURN(const T key, take_number<T>());
    const auto found = memo_.find(key);
    if (found == memo_.end()) return wrong(fmt::format("nothing was put at {}", key));
    stack_.push_back(found->second);
    return {};
  }

  Status mark() {
    if (marks_.size() == kMaxMarks) return resource_exhausted(fmt::format("{}: too deep", here()));
    marks_.push_back(stack_.size());
    return {};
  }

  Status push_tuple(std::span<const Id> elements) {
    const auto first = static_cast<std::int64_t>(items_.size());
    items_.insert(items_.end(), elements.begin(), elements.end());
    return push({.kind = Kind::kTuple, .number = first, .count = static_cast<std::int64_t>(elements.size())});
  }

  Status tuple(std::size_t count) {
    if (above_mark() < count) return wrong("the stack is empty");
    return push_tuple(take_top(count));
  }

  Status marked_tuple() {
    LANNER_ASSIGN_OR_RETURN(const auto elements, pop_mark());
    return push_tuple(elements);
  }

  Status dict(bool ordered) {
    dicts_.emplace_back();
    return push({.kind = Kind::kDict, .ordered = ordered, .number = static_cast<std::int64_t>(dicts_.size() - 1)});
  }

  Status add_items(std::span<const Id> keys_and_values) {
    if (keys_and_values.size() % 2 != 0) return wrong("a key without a value");
    if (above_mark() == 0 || value(stack_.back()).kind != Kind::kDict) return refuse("on something that is not a dict");
    auto& items = dicts_[static_cast<std::size_t>(value(stack_.back()).number)];
    for (std::size_t i = 0; i < keys_and_values.size(); i += 2) {
      items.emplace_back(keys_and_values[i], keys_and_values[i + 1]);
    }
    dict_items_ += keys_and_values.size();
    return {};
  }

  Status set_item() {
    LANNER_ASSIGN_OR_RETURN(const Id item, pop());
    LANNER_ASSIGN_OR_RETURN(const Id key, pop());
    return add_items(std::array{key, item});
  }

  Status set_items() {
    LANNER_ASSIGN_OR_RETURN(const auto items, pop_mark());
    return add_items(items);
  }

  Status global() {
    LANNER_ASSIGN_OR_RETURN(const std::string_view module, take_line());
    LANNER_ASSIGN_OR_RETURN(const std::string_view name, take_line());
    const auto* found = std::ranges::find_if(
        kGlobals, [&](const GlobalName& known) { return known.module == module && known.name == name; });
    if (found == kGlobals.end()) {
      return refuse(fmt::format("{}.{} is not a name that a table of tensors needs; nothing was run", printable(module),
                                printable(name)));
    }
    return push({.kind = Kind::kGlobal, .number = found - kGlobals.begin()});
  }

  /// The entry of kGlobals that a value is, if it is one.
  const GlobalName* as_global(Id id) const {
    return value(id).kind == Kind::kGlobal ? &kGlobals[static_cast<std::size_t>(value(id).number)] : nullptr;
  }

  /// BINPERSID. A storage is ("storage", its type, its key, the device it was on, its number of elements).
  Status storage() {
    LANNER_ASSIGN_OR_RETURN(const Id id, pop());
    const auto parts = elements(id);
    if (parts.size() != 5 || value(parts[0]).text != "storage" || as_global(parts[1]) == nullptr ||
        as_global(parts[1])->global != Global::kStorageType || value(parts[2]).kind != Kind::kText ||
        value(parts[3]).kind != Kind::kText || value(parts[4]).kind != Kind::kInteger || value(parts[4]).number < 0) {
      return refuse("on something that is not a storage of tensors");
    }
    storages_.push_back({as_global(parts[1])->dtype, value(parts[2]).text, value(parts[4]).number});
    return push({.kind = Kind::kStorage, .number = static_cast<std::int64_t>(storages_.size() - 1)});
  }

  Status reduce() {
    LANNER_ASSIGN_OR_RETURN(const Id arguments, pop());
    LANNER_ASSIGN_OR_RETURN(const Id function, pop());
    const GlobalName* global = as_global(function);
    if (global == nullptr || value(arguments).kind != Kind::kTuple) return refuse("on something that is no function");
    const auto parts = elements(arguments);
    switch (global->global) {
      case Global::kOrderedDict:
        if (!parts.empty()) return refuse("of OrderedDict with arguments");
        return dict(/*ordered=*/true);
      case Global::kTensorV2:
      case Global::kTensorV3: return tensor(*global, parts);
      case Global::kParameter:
        if (parts.size() != 3 || value(parts[0]).kind != Kind::kTensor) return refuse("of a parameter without tensor");
        stack_.push_back(parts[0]);
        return {};
      case Global::kStorageType:
      case Global::kDtype: break;
    }
    return refuse(fmt::format("of {}.{}, which is not a function", global->module, global->name));
  }

  /// (storage, first element, sizes, strides, requires_grad, hooks[, dtype][, metadata])
  Status tensor(const GlobalName& function, std::span<const Id> parts) {
    const std::size_t known = function.global == Global::kTensorV3 ? 7 : 6;
    if (parts.size() != known && parts.size() != known + 1) return refuse("of a tensor with unknown arguments");
    if (value(parts[0]).kind != Kind::kStorage || value(parts[1]).kind != Kind::kInteger ||
        value(parts[1]).number < 0) {
      return refuse("of a tensor without storage");
    }
    if (tensors_.size() == static_cast<std::size_t>(kMaxTensors)) {
      return resource_exhausted(fmt::format("{}: more than {} tensors", where_, kMaxTensors));
    }
    PickledTensor tensor;
    tensor.storage = storages_[static_cast<std::size_t>(value(parts[0]).number)];
    tensor.dtype = tensor.storage.dtype;
    tensor.first = value(parts[1]).number;
    LANNER_ASSIGN_OR_RETURN(tensor.shape, sizes(parts[2]));
    LANNER_ASSIGN_OR_RETURN(tensor.strides, sizes(parts[3]));
    if (tensor.shape.size() != tensor.strides.size()) return wrong("a tensor with more sizes than strides, or less");
    if (!is_empty_dict(parts[5])) return refuse("of a tensor with hooks");
    if (parts.size() > known && value(parts[known]).kind != Kind::kNone && !is_empty_dict(parts[known])) {
      return refuse("of a tensor with metadata");
    }
    if (function.global == Global::kTensorV3) {
      const GlobalName* dtype = as_global(parts[6]);
      if (dtype == nullptr || dtype->global != Global::kDtype || !tensor.storage.dtype.empty()) {
        return refuse("of a tensor of unknown dtype");
      }
      tensor.dtype = dtype->dtype;
    } else if (tensor.dtype.empty()) {
      return refuse("of a tensor of unknown dtype");
    }
    tensors_.push_back(std::move(tensor));
    return push({.kind = Kind::kTensor, .number = static_cast<std::int64_t>(tensors_.size() - 1)});
  }

  bool is_empty_dict(Id id) const {
    return value(id).kind == Kind::kDict && dicts_[static_cast<std::size_t>(value(id).number)].empty();
  }

  Result<std::vector<std::int64_t>> sizes(Id id) const {
    if (value(id).kind != Kind::kTuple) return refuse("of a tensor whose sizes or strides are no tuple");
    const auto parts = elements(id);
    if (parts.size() > kMaxDimensions) return refuse(fmt::format("of a tensor of {} dimensions", parts.size()));
    std::vector<std::int64_t> sizes;
    for (const Id part : parts) {
      if (value(part).kind != Kind::kInteger || value(part).number < 0) return wrong("a size that is no count");
      sizes.push_back(value(part).number);
    }
    return sizes;
  }

  /// BUILD gives an object attributes. A state dict has some (its _metadata), and they do not count here.
  Status build() {
    LANNER_ASSIGN_OR_RETURN(const Id state, pop());
    if (above_mark() == 0) return wrong("the stack is empty");
    const Value& object = value(stack_.back());
    if (object.kind != Kind::kDict || !object.ordered || value(state).kind != Kind::kDict) {
      return refuse("on something that is not an OrderedDict");
    }
    return {};
  }

  Result<std::vector<PickledTensor>> result() {
    if (!marks_.empty() || stack_.size() != 1) return wrong("the pickle does not end in one value");
    if (value(stack_[0]).kind != Kind::kDict) return refuse("the pickle holds something else than a dict of tensors");
    std::set<std::string_view> names;
    std::vector<PickledTensor> tensors;
    for (const auto& [key, item] : dicts_[static_cast<std::size_t>(value(stack_[0]).number)]) {
      if (value(key).kind != Kind::kText) return unsupported(fmt::format("{}: has a key that is no text", where_));
      const std::string_view name = value(key).text;
      if (value(item).kind != Kind::kTensor) {
        return unsupported(fmt::format("{}: {}: is not a tensor", where_, printable(name)));
      }
      if (!names.insert(name).second) return corrupt(fmt::format("{}: {}: is there twice", where_, printable(name)));
      tensors.push_back(tensors_[static_cast<std::size_t>(value(item).number)]);
      tensors.back().name = name;
    }
    return tensors;
  }

  std::span<const std::byte> pickle_;
  std::string_view where_;
  std::size_t place_ = 0;        // of the next byte
  std::size_t instruction_ = 0;  // where the current one began
  std::uint8_t opcode_ = 0;
  bool stopped_ = false;
  std::vector<Value> values_;
  std::vector<Id> items_;  // of all tuples
  std::vector<std::vector<std::pair<Id, Id>>> dicts_;
  std::size_t dict_items_ = 0;
  std::vector<PickledStorage> storages_;
  std::vector<PickledTensor> tensors_;
  std::vector<Id> stack_;
  std::vector<std::size_t> marks_;  // sizes of the stack
  std::unordered_map<std::uint32_t, Id> memo_;
};

}  // namespace

Result<std::vector<PickledTensor>> read_tensor_pickle(std::span<const std::byte> pickle, std::string_view where) {
  return Machine(pickle, where).run();
}

}  // namespace lanner::model
