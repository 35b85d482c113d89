#pragma once
// Charts laid out: straight strokes and short texts at places, which any kind of picture can show. Of line_chart.h.

#include <cstdint>
#include <string>
#include <vector>

#include "eval/line_chart.h"

namespace lanner::eval {

struct ChartColor {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
};

/// Coordinates are pixels from the top left corner.
struct ChartStroke {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  ChartColor color;
  double width = 1;
};

struct ChartText {
  enum class Anchor : std::uint8_t { kStart, kMiddle, kEnd };  // what of the text is at x
  double x = 0, y = 0;                                         // y: of the line that it stands on
  std::string text;
  Anchor anchor = Anchor::kStart;
  double size = 13;
};

struct ChartDrawing {
  int width = 800;
  int height = 0;
  std::vector<ChartStroke> strokes;
  std::vector<ChartText> texts;
};

/// One below the other, each as high as the others.
ChartDrawing lay_out(std::span<const LineChart> charts);

}  // namespace lanner::eval
