#include "eval/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "core/escape_markup.h"
#include "core/mapped_file.h"
#include "eval/chart_drawing.h"

namespace lanner::eval {
namespace {

constexpr std::array<ChartColor, 6> kColors = {
    {{31, 119, 180}, {214, 102, 10}, {44, 140, 60}, {190, 40, 50}, {120, 90, 180}, {110, 80, 70}}};
constexpr ChartColor kInk = {40, 40, 40};
constexpr ChartColor kGrid = {224, 224, 224};
constexpr double kLeft = 64, kTop = 76, kRight = 186, kBottom = 56;  // around the lines
constexpr int kHeight = 480;
constexpr double kDash = 7, kGap = 5;

/// 1, 2 or 5 times a power of ten, of which a handful reach `largest`.
double tick_step(double largest) {
  if (largest <= 0) return 1;
  const double rough = largest / 5;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

struct Axis {
  double step = 1;
  double end = 1;  // a whole number of steps

  explicit Axis(double largest) : step(tick_step(largest)) {
    end = step * std::max(1.0, std::ceil(largest / step - 1e-9));
  }
};

void add_dashes(const ChartStroke& whole, std::vector<ChartStroke>& strokes) {
  const double length = std::hypot(whole.x1 - whole.x0, whole.y1 - whole.y0);
  const int dashes = static_cast<int>(length / (kDash + kGap)) + 1;
  for (int i = 0; i < dashes; ++i) {
    const double begin = i * (kDash + kGap) / std::max(length, 1e-9);
    const double end = std::min(1.0, begin + kDash / std::max(length, 1e-9));
    if (begin >= 1.0) break;
    ChartStroke dash = whole;
    dash.x0 = whole.x0 + (whole.x1 - whole.x0) * begin;
    dash.y0 = whole.y0 + (whole.y1 - whole.y0) * begin;
    dash.x1 = whole.x0 + (whole.x1 - whole.x0) * end;
    dash.y1 = whole.y0 + (whole.y1 - whole.y0) * end;
    strokes.push_back(dash);
  }
}

void add_line(const ChartStroke& line, bool dashed, std::vector<ChartStroke>& strokes) {
  if (dashed) return add_dashes(line, strokes);
  strokes.push_back(line);
}

/// What XML holds as itself, the rest in its escapes.
std::string escaped(std::string text) {
  std::ranges::replace_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return escape_markup(text);
}

std::string color_name(ChartColor color) {
  return fmt::format("#{:02x}{:02x}{:02x}", color.red, color.green, color.blue);
}

const char* anchor_name(ChartText::Anchor anchor) {
  switch (anchor) {
    case ChartText::Anchor::kStart: return "start";
    case ChartText::Anchor::kMiddle: return "middle";
    case ChartText::Anchor::kEnd: return "end";
  }
  return "start";
}

/// Adds a chart below what is there.
void add_chart(const LineChart& chart, ChartDrawing& drawing) {
  double most_x = 0;
  double most_y = 0;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      most_x = std::max(most_x, point.x);
      most_y = std::max(most_y, point.y);
    }
  }
  const Axis x_axis(most_x);
  const Axis y_axis(most_y);
  const double top = drawing.height + kTop;
  const double right = drawing.width - kRight;
  drawing.height += kHeight;
  const double bottom = drawing.height - kBottom;
  const auto at_x = [&](double x) { return kLeft + (right - kLeft) * x / x_axis.end; };
  const auto at_y = [&](double y) { return bottom - (bottom - top) * y / y_axis.end; };
  using enum ChartText::Anchor;
  for (int i = 0; i * x_axis.step <= x_axis.end * 1.0001; ++i) {
    const double x = at_x(i * x_axis.step);
    drawing.strokes.push_back({x, top, x, bottom, kGrid});
    drawing.texts.push_back({x, bottom + 18, fmt::format("{:.4g}", i * x_axis.step), kMiddle});
  }
  for (int i = 0; i * y_axis.step <= y_axis.end * 1.0001; ++i) {
    const double y = at_y(i * y_axis.step);
    drawing.strokes.push_back({kLeft, y, right, y, kGrid});
    drawing.texts.push_back({kLeft - 8, y + 4, fmt::format("{:.4g}", i * y_axis.step), kEnd});
  }
  drawing.strokes.push_back({kLeft, top, kLeft, bottom, kInk});
  drawing.strokes.push_back({kLeft, bottom, right, bottom, kInk});
  drawing.texts.push_back({kLeft, top - 48, chart.title, kStart, 16});
  drawing.texts.push_back({kLeft, top - 14, chart.y_label});
  drawing.texts.push_back({(kLeft + right) / 2, bottom + 42, chart.x_label, kMiddle});
  double legend = top + 6;
  for (const ChartSeries& series : chart.series) {
    const ChartColor color = kColors[series.color % kColors.size()];
    std::vector<ChartPoint> points = series.points;
    std::ranges::sort(points, {}, &ChartPoint::x);
    for (std::size_t i = 0; i < points.size(); ++i) {
      const double x = at_x(points[i].x);
      const double y = at_y(points[i].y);
      drawing.strokes.push_back({x - 2, y, x + 2, y, color, 4});
      if (i == 0) continue;
      add_line({at_x(points[i - 1].x), at_y(points[i - 1].y), x, y, color, 2}, series.dashed, drawing.strokes);
    }
    add_line({right + 16, legend, right + 44, legend, color, 2}, series.dashed, drawing.strokes);
    drawing.texts.push_back({right + 52, legend + 4, series.name, kStart, 12});
    legend += 22;
  }
}

}  // namespace

ChartDrawing lay_out(std::span<const LineChart> charts) {
  ChartDrawing drawing;
  for (const LineChart& chart : charts) add_chart(chart, drawing);
  return drawing;
}

std::string charts_svg(std::span<const LineChart> charts) {
  const ChartDrawing drawing = lay_out(charts);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      drawing.width, drawing.height);
  for (const ChartStroke& stroke : drawing.strokes) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"{}\"/>\n",
        stroke.x0, stroke.y0, stroke.x1, stroke.y1, color_name(stroke.color), stroke.width);
  }
  for (const ChartText& text : drawing.texts) {
    svg += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" font-family=\"sans-serif\" font-size=\"{}\" text-anchor=\"{}\" "
        "fill=\"{}\">{}</text>\n",
        text.x, text.y, text.size, anchor_name(text.anchor), color_name(kInk), escaped(text.text));
  }
  return svg + "</svg>\n";
}

Status check_chart_path(const std::string& path) {
  if (path.ends_with(".svg") || path.ends_with(".png")) return {};
  return invalid_argument(fmt::format("{}: a chart is written as .svg or .png", path));
}

Status write_charts(std::span<const LineChart> charts, const std::string& path) {
  LANNER_RETURN_IF_ERROR(check_chart_path(path));
  return write_file_atomically(path, path.ends_with(".svg") ? charts_svg(charts) : charts_png(charts));
}

}  // namespace lanner::eval
