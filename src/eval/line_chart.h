#pragma once
// Charts of some lines over one axis, one below the other in a picture: SVG, or PNG for what shows no SVG.
//
//   LineChart chart{.title = "memory", .x_label = "share", .y_label = "GB", .series = {…}};
//   LANNER_RETURN_IF_ERROR(write_charts({&chart, 1}, "memory.png"));   // or .svg

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"

namespace lanner::eval {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

struct ChartSeries {
  std::string name;
  bool dashed = false;
  std::size_t color = 0;  // of a few; the next after the last is the first
  std::vector<ChartPoint> points;
};

/// Both axes begin at 0 and are linear; points are finite and not negative. Points of a series are joined by their x.
struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<ChartSeries> series;
};

/// A document of its own. Texts are escaped; what XML cannot hold becomes '?'.
std::string charts_svg(std::span<const LineChart> charts);
/// The bytes of a file. Texts are drawn in capitals; what the letters at hand lack becomes '?'.
std::string charts_png(std::span<const LineChart> charts);

/// By the ending of the path's name, .svg or .png; kInvalidArgument for another. Writes beside `path` and renames.
Status write_charts(std::span<const LineChart> charts, const std::string& path);
/// kInvalidArgument where write_charts would say so: to be asked before the work.
Status check_chart_path(const std::string& path);

}  // namespace lanner::eval
