#include "model/pickle.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/torch_builders.h"

namespace lanner::model {
namespace {

using namespace pickled;

const std::string kProtocol = "\x80\x02";

Result<std::vector<PickledTensor>> parse(std::string_view pickle) { return read_tensor_pickle(as_bytes(pickle), "x"); }

std::string small_tensor() { return tensor(storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1}); }

/// The failure of a dict with this value.
Status with(const std::string& value) { return parse(dict({{"t", value}})).status(); }

TEST(Pickle, ReadsTensors) {
  const std::string pickle =
      dict({{"a", small_tensor()}, {"b", tensor(storage("BFloat16Storage", "7", 9), 4, {}, {})}});
  const auto tensors = parse(pickle);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, "F32");
  EXPECT_EQ((*tensors)[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[0].strides, (std::vector<std::int64_t>{3, 1}));
  EXPECT_EQ((*tensors)[0].storage.count, 6);
  EXPECT_EQ((*tensors)[1].dtype, "BF16");
  EXPECT_EQ((*tensors)[1].storage.key, "7");
  EXPECT_EQ((*tensors)[1].first, 4);
}

TEST(Pickle, ReadsParametersAttributesAndMemo) {
  std::string pickle = kProtocol + ordered_dict() + "q\x05";
  pickle += text("p") + "r\x06" + std::string(3, '\0');  // LONG_BINPUT 6
  pickle += global("torch._utils", "_rebuild_parameter") + tuple({small_tensor(), "\x88", ordered_dict()}) + "Rs";
  pickle += std::string("}") + text("_metadata") + ordered_dict() + "s" + "b.";
  const auto tensors = parse(pickle);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  ASSERT_EQ(tensors->size(), 1U);
  EXPECT_EQ((*tensors)[0].name, "p");
  const std::string memo = "\x80\x02}" + text("k") + "q\x01" + small_tensor() + "q\x02s" + "h\x02.";
  EXPECT_EQ(parse(memo).status().code(), StatusCode::kCorrupt);  // two values are left
}

TEST(Pickle, RefusesEveryOtherInstructionByName) {
  // All 256 bytes as an instruction, behind values that any of them would find on its stack.
  const std::string known = "\x80.N\x88\x89JKM\x8AXqrhj()\x85\x86\x87t}sucQRb";
  int refused = 0;
  for (int code = 0; code < 256; ++code) {
    if (known.find(static_cast<char>(code)) != std::string::npos) continue;
    const std::string pickle =
        kProtocol + "(" + text("os") + text("system") + text("true") + ")" + static_cast<char>(code) + "os\nsystem\n).";
    const Status status = parse(pickle).status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << code;
    const std::string name = fmt::format(" {} ", pickle_opcode_name(static_cast<std::uint8_t>(code)));
    EXPECT_NE(status.message().find(name), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("nothing was run"), std::string::npos) << status.message();
    ++refused;
  }
  EXPECT_EQ(refused, 256 - static_cast<int>(known.size()));
}

TEST(Pickle, RefusesOtherNames) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"__builtin__", "eval"},
                                                        {"torch", "load"},
                                                        {"torch._utils", "_rebuild_tensor"},
                                                        {"collections", "Counter"},
                                                        {"collections.OrderedDict", ""},
                                                        {"torch", "FloatStorage.__class__"},
                                                        {"torch\x01", "FloatStorage"},
                                                        {"", ""}}) {
    const Status status = parse(kProtocol + global(module, name) + ")R.").status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << module << "." << name;
    EXPECT_NE(status.message().find("GLOBAL"), std::string::npos) << status.message();
    EXPECT_EQ(status.message().find('\x01'), std::string::npos);
  }
  EXPECT_EQ(parse("\x80\x02"
                  "c" +
                  std::string(1000, 'a'))
                .status()
                .code(),
            StatusCode::kUnsupported);
}

TEST(Pickle, RefusesCallsOfOtherThings) {
  const std::string calls[] = {
      text("f") + ")R",                         // a text
      ordered_dict() + ")R",                    // a dict
      global("torch", "FloatStorage") + ")R",   // a type
      global("torch", "float8_e4m3fn") + ")R",  // a dtype
      global("collections", "OrderedDict") + tuple({small_tensor()}) + "R",
      global("collections", "OrderedDict") + "NR",          // no tuple
      global("torch._utils", "_rebuild_tensor_v2") + ")R",  // no arguments
      global("torch._utils", "_rebuild_tensor_v2") + tuple({"N", "N", ")", ")", "N", ordered_dict()}) + "R",
      global("torch._utils", "_rebuild_tensor_v3") + ")R",
      global("torch._utils", "_rebuild_parameter") + tuple({"N", "\x88", ordered_dict()}) + "R",
  };
  for (const std::string& call : calls) {
    const Status status = with(call);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << call;
    EXPECT_NE(status.message().find("REDUCE"), std::string::npos) << status.message();
  }
  const std::pair<const char*, std::string> others[] = {{"BUILD", small_tensor() + "}b"},
                                                        {"BUILD", "}}b"},
                                                        {"BUILD", ordered_dict() + "Nb"},
                                                        {"SETITEM", small_tensor() + "NNs"},
                                                        {"SETITEMS", small_tensor() + "(NNu"},
                                                        {"BINPERSID", text("storage") + "Q"},
                                                        {"BINPERSID", ")Q"},
                                                        {"BINPERSID", storage("float8_e4m3fn", "0", 1)},
                                                        {"BINPERSID", storage("FloatStorage", "0", -1)}};
  for (const auto& [name, value] : others) {
    const Status status = with(value);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << name << " " << value;
    EXPECT_NE(status.message().find(std::string(" ") + name + " at"), std::string::npos) << status.message();
  }
}

TEST(Pickle, RefusesTensors) {
  const std::string one = storage("FloatStorage", "0", 1);
  const std::string function = global("torch._utils", "_rebuild_tensor_v2");
  EXPECT_EQ(with(tensor(one, 0, {1}, {})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(with(tensor(one, 0, {-1}, {1})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(with(tensor(one, 0, {1}, {-1})).code(), StatusCode::kCorrupt);
  EXPECT_EQ(with(tensor(one, -1, {1}, {1})).code(), StatusCode::kUnsupported);
  EXPECT_EQ(with(tensor(one, 0, std::vector<std::int64_t>(9, 1), std::vector<std::int64_t>(9, 1))).code(),
            StatusCode::kUnsupported);
  const std::string hooks = std::string("}") + text("k") + "Ns";
  EXPECT_EQ(with(function + tuple({one, integer(0), sizes({}), sizes({}), "\x89", hooks}) + "R").code(),
            StatusCode::kUnsupported);
  const std::string negative = std::string("}") + text("neg") + "\x88s";  // metadata that changes what the bytes mean
  EXPECT_EQ(with(function + tuple({one, integer(0), sizes({}), sizes({}), "\x89", "}", negative}) + "R").code(),
            StatusCode::kUnsupported);
  EXPECT_TRUE(with(function + tuple({one, integer(0), sizes({}), sizes({}), "\x89", "}", "}"}) + "R").ok());
  EXPECT_EQ(with("N").code(), StatusCode::kUnsupported);
  EXPECT_EQ(with(integer(1)).code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse(dict({{"t", small_tensor()}, {"t", small_tensor()}})).status().code(), StatusCode::kCorrupt);
}

TEST(Pickle, ReadsTensorsOfNewDtypes) {
  const std::string bytes =
      tuple({text("storage"), global("torch.storage", "UntypedStorage"), text("0"), text("cpu"), integer(4)}) + "Q";
  const auto call = [&](const std::string& function, const std::vector<std::string>& last) {
    std::vector<std::string> arguments{bytes, integer(0), sizes({2}), sizes({1}), "\x89", ordered_dict()};
    arguments.insert(arguments.end(), last.begin(), last.end());
    return dict({{"t", global("torch._utils", function) + tuple(arguments) + "R"}});
  };
  const std::string pickle = call("_rebuild_tensor_v3", {global("torch", "uint16")});
  const auto tensors = parse(pickle);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ((*tensors)[0].dtype, "U16");
  EXPECT_TRUE((*tensors)[0].storage.dtype.empty());
  EXPECT_EQ(parse(call("_rebuild_tensor_v2", {})).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse(call("_rebuild_tensor_v3", {"N"})).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse(call("_rebuild_tensor_v3", {global("torch", "FloatStorage")})).status().code(),
            StatusCode::kUnsupported);
}

TEST(Pickle, RefusesBrokenOnes) {
  const std::string pickle = dict({{"t", small_tensor()}});
  for (std::size_t size = 0; size < pickle.size(); ++size) {
    EXPECT_FALSE(parse(std::string_view(pickle).substr(0, size)).ok()) << size;
  }
  for (const std::string& broken :
       {pickle + "x", std::string("\x80\x02."), std::string("\x80\x02s."), std::string("\x80\x02t."),
        std::string("\x80\x02\x86."), std::string("\x80\x02h\x01."), std::string("\x80\x02q\x01."),
        std::string("\x80\x02R."), std::string("\x80\x02}}."), std::string("\x80\x02}(."), std::string("}\x80\x02."),
        std::string("\x80\x02}(Nu."), std::string("\x80\x02}(b."), std::string("\x80\x02N(\x85.")}) {
    EXPECT_EQ(parse(broken).status().code(), StatusCode::kCorrupt) << testing::PrintToString(broken);
  }
  EXPECT_EQ(parse("\x80\x04}.").status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse("\x80\x02\x8A\x09"
                  "123456789.")
                .status()
                .code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(parse("\x80\x02N.").status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse("\x80\x02}NNs.").status().code(), StatusCode::kUnsupported);  // a key that is no text
}

TEST(Pickle, EveryBitFlipEnds) {
  const std::string pickle = dict({{"t", small_tensor()}, {"u", small_tensor()}});
  for (std::size_t bit = 0; bit < 8 * pickle.size(); ++bit) {
    std::string broken = pickle;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const Status status = parse(broken).status();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
}

TEST(Pickle, LimitsWhatItKeeps) {
  EXPECT_EQ(parse(kProtocol + std::string(100, '(')).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(parse(kProtocol + std::string(3'000'000, 'N')).status().code(), StatusCode::kResourceExhausted);
  std::string doubling = "\x80\x02Nq\x01";  // pushes of what is there already
  for (int i = 0; i < 2'100'000; ++i) doubling += "h\x01";
  EXPECT_EQ(parse(doubling).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(parse(std::string((64 << 20) + 1, 'N')).status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lanner::model
