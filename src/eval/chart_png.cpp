// A chart as PNG (ISO/IEC 15948): strokes by how much of a pixel they cover, letters of strokes, and the pixels
// deflated (RFC 1951) with the fixed code. Most of a chart is white, so that repeating the pixel before, or the row
// above, is all that it takes to make it small.

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string_view>

#include "core/crc32.h"
#include "eval/chart_drawing.h"

namespace lanner::eval {
namespace {

// --- pixels ----------------------------------------------------------------------------------------------------

class Canvas {
 public:
  Canvas(int width, int height)
      : width_(width), height_(height), bytes_(static_cast<std::size_t>(height) * row_bytes(), 255) {
    for (int y = 0; y < height; ++y) bytes_[static_cast<std::size_t>(y) * row_bytes()] = 0;  // the row is not filtered
  }

  void draw(const ChartStroke& stroke) {
    const double half = stroke.width / 2;
    const double reach = half + 1;
    const int left = clamped(std::min(stroke.x0, stroke.x1) - reach, width_);
    const int right = clamped(std::max(stroke.x0, stroke.x1) + reach, width_);
    const int top = clamped(std::min(stroke.y0, stroke.y1) - reach, height_);
    const int bottom = clamped(std::max(stroke.y0, stroke.y1) + reach, height_);
    for (int y = top; y < bottom; ++y) {
      for (int x = left; x < right; ++x) {
        const double covered = half + 0.5 - distance(stroke, x + 0.5, y + 0.5);
        if (covered > 0) blend(x, y, stroke.color, std::min(1.0, covered));
      }
    }
  }

  /// For each row a 0 for its filter, then red, green and blue of each pixel.
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }
  std::size_t row_bytes() const { return 3 * static_cast<std::size_t>(width_) + 1; }

 private:
  static int clamped(double place, int end) { return std::clamp(static_cast<int>(place), 0, end); }

  /// From a point to the nearest of the stroke.
  static double distance(const ChartStroke& stroke, double x, double y) {
    const double dx = stroke.x1 - stroke.x0;
    const double dy = stroke.y1 - stroke.y0;
    const double squared = dx * dx + dy * dy;
    const double along = squared == 0 ? 0 : ((x - stroke.x0) * dx + (y - stroke.y0) * dy) / squared;
    const double share = std::clamp(along, 0.0, 1.0);
    return std::hypot(x - stroke.x0 - share * dx, y - stroke.y0 - share * dy);
  }

  void blend(int x, int y, ChartColor color, double share) {
    std::uint8_t* pixel = &bytes_[static_cast<std::size_t>(y) * row_bytes() + 1 + 3 * static_cast<std::size_t>(x)];
    const std::array<std::uint8_t, 3> parts = {color.red, color.green, color.blue};
    for (std::size_t i = 0; i < 3; ++i) {
      pixel[i] = static_cast<std::uint8_t>(std::lround(pixel[i] + (parts[i] - pixel[i]) * share));
    }
  }

  int width_;
  int height_;
  std::vector<std::uint8_t> bytes_;
};

// --- letters ---------------------------------------------------------------------------------------------------

struct Letter {
  char letter;
  std::string_view lines;  // points "xy" with x in 0..4 from the left and y in 0..6 from the top; a blank lifts the pen
};
constexpr Letter kLetters[] = {
    {' ', ""},
    {'0', "103041453616050110"},
    {'1', "112026 1636"},
    {'2', "01103041420646"},
    {'3', "004022324345361605"},
    {'4', "36300444"},
    {'5', "4000023243453606"},
    {'6', "301001051636454433 3303"},
    {'7', "004016"},
    {'8', "103041423313020110 130405163645443313"},
    {'9', "43130201103041453616"},
    {'A', "0602204246 0444"},
    {'B', "00063645443303 3342413000"},
    {'C', "4130100105163645"},
    {'D', "00062644422000"},
    {'E', "40000646 0333"},
    {'F', "400006 0333"},
    {'G', "41301001051636454323"},
    {'H', "0006 4046 0343"},
    {'I', "1030 2026 1636"},
    {'J', "4045361605"},
    {'K', "0006 400346"},
    {'L', "000646"},
    {'M', "0600234046"},
    {'N', "06004640"},
    {'O', "103041453616050110"},
    {'P', "06003041423303"},
    {'Q', "103041453616050110 3446"},
    {'R', "06003041423303 2346"},
    {'S', "413010010213334445361605"},
    {'T', "0040 2026"},
    {'U', "000516364540"},
    {'V', "002640"},
    {'W', "0016233640"},
    {'X', "0046 4006"},
    {'Y', "002340 2326"},
    {'Z', "00400646"},
    {'.', "2526"},
    {',', "2516"},
    {':', "2122 2526"},
    {'-', "1333"},
    {'_', "0646"},
    {'/', "4006"},
    {'(', "30121436"},
    {')', "10323416"},
    {'%', "4006 0010110100 3545463635"},
    {'+', "2125 0343"},
    {'=', "0242 0444"},
    {'?', "0110304142232425 2626"},
};
constexpr double kAdvance = 5.8;  // units from letter to letter

std::string_view lines_of(char c) {
  const auto find = [](char letter) { return std::ranges::find(kLetters, letter, &Letter::letter); };
  const auto* found = find(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  return found == std::end(kLetters) ? find('?')->lines : found->lines;
}

void draw_text(const ChartText& text, Canvas& canvas) {
  constexpr ChartColor kInk = {40, 40, 40};
  const double unit = text.size * 0.72 / 6;
  const double width = kAdvance * unit * static_cast<double>(text.text.size());
  double left = text.x;
  if (text.anchor == ChartText::Anchor::kMiddle) left -= width / 2;
  if (text.anchor == ChartText::Anchor::kEnd) left -= width;
  for (const char c : text.text) {
    const std::string_view lines = lines_of(c);
    bool down = false;
    ChartStroke stroke{.color = kInk, .width = text.size / 11};
    for (std::size_t i = 0; i < lines.size();) {
      if (lines[i] == ' ') {
        down = false;
        ++i;
        continue;
      }
      stroke.x1 = left + (lines[i] - '0') * unit;
      stroke.y1 = text.y + (lines[i + 1] - '0' - 6) * unit;
      if (down) canvas.draw(stroke);
      stroke.x0 = stroke.x1;
      stroke.y0 = stroke.y1;
      down = true;
      i += 2;
    }
    left += kAdvance * unit;
  }
}

// --- the file --------------------------------------------------------------------------------------------------

/// Bits from the least significant on, as deflate packs them.
class BitWriter {
 public:
  void bits(unsigned value, unsigned count) {
    held_ |= value << count_;
    count_ += count;
    for (; count_ >= 8; count_ -= 8, held_ >>= 8U) bytes_.push_back(static_cast<char>(held_ & 255U));
  }
  /// A code of Huffman's, of which the most significant bit comes first.
  void code(unsigned value, unsigned count) {
    for (unsigned i = count; i-- > 0;) bits(value >> i & 1U, 1);
  }
  std::string finish() {
    if (count_ > 0) bits(0, 8 - count_);
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
  unsigned held_ = 0;
  unsigned count_ = 0;
};

/// A literal, the end of the block (256) or a length's symbol, in the fixed code.
void write_symbol(unsigned symbol, BitWriter& out) {
  if (symbol < 144) return out.code(0x30 + symbol, 8);
  if (symbol < 256) return out.code(0x190 + symbol - 144, 9);
  if (symbol < 280) return out.code(symbol - 256, 7);
  out.code(0xC0 + symbol - 280, 8);
}

/// "length, distance": repeat what lies `distance` bytes back. length 3 to 258, distance 1 to 32,768.
void write_match(unsigned length, unsigned distance, BitWriter& out) {
  if (length == 258) {
    write_symbol(285, out);
  } else {  // four symbols for each number of further bits, but eight for none
    unsigned further = 0;
    while ((length - 3) >> further >= 8) ++further;
    write_symbol(257 + 4 * further + ((length - 3) >> further), out);
    out.bits((length - 3) & ((1U << further) - 1U), further);
  }
  unsigned further = 0;  // two codes for each, but four for none
  while ((distance - 1) >> further >= 4) ++further;
  out.code(2 * further + ((distance - 1) >> further), 5);
  out.bits((distance - 1) & ((1U << further) - 1U), further);
}

std::string deflated(const std::vector<std::uint8_t>& bytes, std::size_t row_bytes) {
  BitWriter out;
  out.bits(1, 1);  // the last block
  out.bits(1, 2);  // with the fixed code
  const auto repeated = [&](std::size_t at, std::size_t distance) {
    std::size_t length = 0;
    if (distance > at) return length;
    while (length < 258 && at + length < bytes.size() && bytes[at + length] == bytes[at + length - distance]) ++length;
    return length;
  };
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t of_pixel = repeated(at, 3);
    const std::size_t of_row = repeated(at, row_bytes);
    const std::size_t length = std::max(of_pixel, of_row);
    if (length >= 3) {
      write_match(static_cast<unsigned>(length), static_cast<unsigned>(of_row == length ? row_bytes : 3), out);
      at += length;
    } else {
      write_symbol(bytes[at++], out);
    }
  }
  write_symbol(256, out);
  return out.finish();
}

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (unsigned shift = 32; shift > 0; shift -= 8) bytes += static_cast<char>(value >> (shift - 8) & 255U);
  return bytes;
}

std::uint32_t adler(const std::vector<std::uint8_t>& bytes) {
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const std::uint8_t byte : bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16U | a;
}

std::string chunk(std::string_view name, std::string_view content) {
  const std::string body = std::string(name) + std::string(content);
  return big_endian(static_cast<std::uint32_t>(content.size())) + body + big_endian(crc32(body));
}

}  // namespace

std::string charts_png(std::span<const LineChart> charts) {
  const ChartDrawing drawing = lay_out(charts);
  Canvas canvas(drawing.width, drawing.height);
  for (const ChartStroke& stroke : drawing.strokes) canvas.draw(stroke);
  for (const ChartText& text : drawing.texts) draw_text(text, canvas);
  std::string head = big_endian(static_cast<std::uint32_t>(drawing.width));
  head += big_endian(static_cast<std::uint32_t>(drawing.height));
  head += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits of red, green and blue; no choices
  const std::string pixels =
      "\x78\x01" + deflated(canvas.bytes(), canvas.row_bytes()) + big_endian(adler(canvas.bytes()));
  return "\x89PNG\r\n\x1A\n" + chunk("IHDR", head) + chunk("IDAT", pixels) + chunk("IEND", "");
}

}  // namespace lanner::eval
