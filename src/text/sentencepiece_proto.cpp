// A tokenizer.model on the wire: protocol buffers, of which the messages ModelProto, SentencePiece, TrainerSpec and
// NormalizerSpec are read as far as they matter for encoding.

#include <fmt/format.h>

#include <bit>
#include <cstdint>

#include "text/sentencepiece_model.h"

namespace lanner {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr std::uint32_t kModelPieces = 1;
constexpr std::uint32_t kModelTrainer = 2;
constexpr std::uint32_t kModelNormalizer = 3;
constexpr std::uint32_t kModelDenormalizer = 5;
constexpr std::uint32_t kPieceText = 1;
constexpr std::uint32_t kPieceScore = 2;
constexpr std::uint32_t kPieceType = 3;
constexpr std::uint32_t kTrainerAlgorithm = 3;
constexpr std::uint32_t kTrainerBlankAsSuffix = 24;
constexpr std::uint32_t kTrainerBlankOnlyPieces = 26;
constexpr std::uint32_t kTrainerByteFallback = 35;
constexpr std::uint32_t kTrainerBosPiece = 46;
constexpr std::uint32_t kTrainerEosPiece = 47;
constexpr std::uint32_t kNormalizerMap = 2;
constexpr std::uint32_t kNormalizerDummyPrefix = 3;
constexpr std::uint32_t kNormalizerRemoveBlanks = 4;
constexpr std::uint32_t kNormalizerEscapeBlanks = 5;

enum class Wire : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  std::uint32_t number = 0;
  Wire wire = Wire::kVarint;
  std::uint64_t value = 0;  // of the three numeric kinds
  std::string_view bytes;   // of kBytes

  bool is(std::uint32_t wanted, Wire kind) const { return number == wanted && wire == kind; }
};

/// The fields of one message, one after the other.
class Reader {
 public:
  explicit Reader(std::string_view message) : rest_(message) {}

  bool done() const { return rest_.empty(); }

  /// False when the bytes are no field.
  bool next(Field& field) {
    std::uint64_t key = 0;
    if (!varint(key) || key >> 32 != 0 || key >> 3 == 0) return false;
    field.number = static_cast<std::uint32_t>(key >> 3);
    field.wire = static_cast<Wire>(key & 7);
    switch (field.wire) {
      case Wire::kVarint: return varint(field.value);
      case Wire::kFixed64: return fixed(8, field.value);
      case Wire::kFixed32: return fixed(4, field.value);
      case Wire::kBytes: {
        std::uint64_t size = 0;
        if (!varint(size) || size > rest_.size()) return false;
        field.bytes = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(static_cast<std::size_t>(size));
        return true;
      }
    }
    return false;  // groups, which the messages do not use, and numbers that mean nothing
  }

 private:
  bool varint(std::uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool fixed(std::size_t size, std::uint64_t& value) {
    if (rest_.size() < size) return false;
    value = 0;
    for (std::size_t at = 0; at < size; ++at) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(rest_[at])) << (8 * at);
    }
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
};

Status broken(std::string_view message) { return corrupt(fmt::format("is no SentencePiece model: {}", message)); }

Status read_piece(std::string_view message, std::size_t id, SentencePiece& piece) {
  Reader reader(message);
  Field field;
  while (!reader.done()) {
    if (!reader.next(field)) return broken(fmt::format("piece {} is cut off", id));
    if (field.is(kPieceText, Wire::kBytes)) piece.text = std::string(field.bytes);
    if (field.is(kPieceScore, Wire::kFixed32)) {
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    }
    if (field.is(kPieceType, Wire::kVarint)) {
      if (field.value < 1 || field.value > 6) return broken(fmt::format("piece {} has type {}", id, field.value));
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  return {};
}

Status read_trainer(std::string_view message, SentencePieceModel& model) {
  Reader reader(message);
  Field field;
  while (!reader.done()) {
    if (!reader.next(field)) return broken("trainer_spec is cut off");
    if (field.is(kTrainerAlgorithm, Wire::kVarint)) {
      if (field.value < 1 || field.value > 4) return broken(fmt::format("model_type is {}", field.value));
      model.algorithm = static_cast<SentencePieceModel::Algorithm>(field.value);
    }
    if (field.is(kTrainerBlankAsSuffix, Wire::kVarint)) model.blank_as_suffix = field.value != 0;
    if (field.is(kTrainerBlankOnlyPieces, Wire::kVarint)) model.blank_only_pieces = field.value != 0;
    if (field.is(kTrainerByteFallback, Wire::kVarint)) model.byte_fallback = field.value != 0;
    if (field.is(kTrainerBosPiece, Wire::kBytes)) model.bos_piece = std::string(field.bytes);
    if (field.is(kTrainerEosPiece, Wire::kBytes)) model.eos_piece = std::string(field.bytes);
  }
  return {};
}

Status read_normalizer(std::string_view message, SentencePieceModel& model) {
  Reader reader(message);
  Field field;
  while (!reader.done()) {
    if (!reader.next(field)) return broken("normalizer_spec is cut off");
    if (field.is(kNormalizerMap, Wire::kBytes)) model.character_map = std::string(field.bytes);
    if (field.is(kNormalizerDummyPrefix, Wire::kVarint)) model.add_dummy_prefix = field.value != 0;
    if (field.is(kNormalizerRemoveBlanks, Wire::kVarint)) model.remove_extra_blanks = field.value != 0;
    if (field.is(kNormalizerEscapeBlanks, Wire::kVarint)) model.escape_blanks = field.value != 0;
  }
  return {};
}

/// The library would change decoded text by this map; no published language model has one.
Status check_denormalizer(std::string_view message) {
  SentencePieceModel model;
  LANNER_RETURN_IF_ERROR(read_normalizer(message, model));
  if (!model.character_map.empty()) return unsupported("has a denormalizer_spec, which is not supported");
  return {};
}

void put_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>((value & 0x7F) | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

void put_key(std::string& out, std::uint32_t number, Wire wire) {
  put_varint(out, (static_cast<std::uint64_t>(number) << 3) | static_cast<std::uint64_t>(wire));
}

void put_number(std::string& out, std::uint32_t number, std::uint64_t value) {
  put_key(out, number, Wire::kVarint);
  put_varint(out, value);
}

void put_bytes(std::string& out, std::uint32_t number, std::string_view bytes) {
  put_key(out, number, Wire::kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_float(std::string& out, std::uint32_t number, float value) {
  put_key(out, number, Wire::kFixed32);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>((bits >> shift) & 0xFF);
}

}  // namespace

Result<SentencePieceModel> parse_sentencepiece_model(std::string_view file) {
  SentencePieceModel model;
  Reader reader(file);
  Field field;
  while (!reader.done()) {
    if (!reader.next(field)) return broken("the file is cut off or of another kind");
    if (field.wire != Wire::kBytes) continue;
    switch (field.number) {
      case kModelPieces:
        if (model.pieces.size() == kMaxSentencePieces) {
          return corrupt(fmt::format("has more than {} pieces", kMaxSentencePieces));
        }
        model.pieces.emplace_back();
        LANNER_RETURN_IF_ERROR(read_piece(field.bytes, model.pieces.size() - 1, model.pieces.back()));
        break;
      case kModelTrainer: LANNER_RETURN_IF_ERROR(read_trainer(field.bytes, model)); break;
      case kModelNormalizer: LANNER_RETURN_IF_ERROR(read_normalizer(field.bytes, model)); break;
      case kModelDenormalizer: LANNER_RETURN_IF_ERROR(check_denormalizer(field.bytes)); break;
      default: break;
    }
  }
  LANNER_RETURN_IF_ERROR(check_sentencepiece_model(model));
  return model;
}

std::string serialize_sentencepiece_model(const SentencePieceModel& model) {
  std::string file;
  std::string part;
  for (const SentencePiece& piece : model.pieces) {
    part.clear();
    put_bytes(part, kPieceText, piece.text);
    put_float(part, kPieceScore, piece.score);
    put_number(part, kPieceType, static_cast<std::uint64_t>(piece.type));
    put_bytes(file, kModelPieces, part);
  }
  part.clear();
  put_number(part, kTrainerAlgorithm, static_cast<std::uint64_t>(model.algorithm));
  put_number(part, kTrainerBlankAsSuffix, model.blank_as_suffix ? 1 : 0);
  put_number(part, kTrainerBlankOnlyPieces, model.blank_only_pieces ? 1 : 0);
  put_number(part, kTrainerByteFallback, model.byte_fallback ? 1 : 0);
  put_bytes(file, kModelTrainer, part);
  part.clear();
  put_bytes(part, kNormalizerMap, model.character_map);
  put_number(part, kNormalizerDummyPrefix, model.add_dummy_prefix ? 1 : 0);
  put_number(part, kNormalizerRemoveBlanks, model.remove_extra_blanks ? 1 : 0);
  put_number(part, kNormalizerEscapeBlanks, model.escape_blanks ? 1 : 0);
  put_bytes(file, kModelNormalizer, part);
  return file;
}

}  // namespace lanner
