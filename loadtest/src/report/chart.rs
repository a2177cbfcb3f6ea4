//! Line charts as SVG: axes, units, lines that differ in dash and colour, and the values for the hover script.
//!
//! A chart is drawn twice, wide and narrow, and the style sheet shows the one that fits: scaling one drawing would make
//! its text unreadable on a phone. Colours are classes of the style sheet, so that light and dark share one drawing.

use super::{
    format,
    scale::{Scale, Unit},
};
use std::fmt::Write as _;

/// As many lines as can be told apart.
pub const LINES_MAX: usize = 8;

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Where values stand.
    pub scale: Scale,
    /// How they are written.
    pub unit: Unit,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Which colour and dash, 0 to [`LINES_MAX`] − 1.
    pub style: usize,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Drawn in steps and thin, as context for the others; not in the legend.
    pub faint: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// One sentence on how to read it.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Vertical marks: value and name.
    pub borders: Vec<(f64, String)>,
    /// A horizontal mark: value and name.
    pub level: Option<(f64, String)>,
}

/// One drawing's measures, in CSS pixels.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The class under which the style sheet shows it.
    pub class: &'static str,
    pub width: f64,
    pub height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// For screens from 760 pixels on.
pub const WIDE: Size = Size {
    class: "wide",
    width: 960.0,
    height: 380.0,
    left: 78.0,
    right: 18.0,
    top: 30.0,
    bottom: 52.0,
};
/// For phones.
pub const NARROW: Size = Size {
    class: "narrow",
    width: 358.0,
    height: 300.0,
    left: 58.0,
    right: 10.0,
    top: 28.0,
    bottom: 50.0,
};

impl Size {
    /// The plot's left edge, and its width.
    pub fn across(self) -> (f64, f64) {
        (self.left, self.width - self.left - self.right)
    }

    /// The plot's upper edge, and its height.
    pub fn down(self) -> (f64, f64) {
        (self.top, self.height - self.top - self.bottom)
    }

    fn x(self, place: f64) -> f64 {
        let (left, width) = self.across();
        left + place * width
    }

    fn y(self, place: f64) -> f64 {
        let (top, height) = self.down();
        top + (1.0 - place) * height
    }

    /// How many labels fit beside each other.
    fn labels(self) -> usize {
        if self.width > 500.0 { 10 } else { 4 }
    }
}

impl Chart {
    /// A figure with both drawings, its legend and its caption.
    pub fn figure(&self) -> String {
        let mut out = format!("<figure><h3>{}</h3>", format::html(&self.title));
        let named: Vec<_> = self.lines.iter().filter(|line| !line.faint).collect();
        if named.len() > 1 || self.level.is_some() {
            out.push_str("<ul class=legend>");
            for line in named {
                let _ = write!(
                    out,
                    "<li><svg class=sample width=34 height=10 aria-hidden=true><path class=\"line s{}\" d=\"M1 5H33\"/></svg>{}</li>",
                    line.style % LINES_MAX,
                    format::html(&line.name)
                );
            }
            if let Some((_, name)) = &self.level {
                level_legend(name, &mut out);
            }
            out.push_str("</ul>");
        }
        for size in [WIDE, NARROW] {
            self.draw(size, &mut out);
        }
        let _ = write!(
            out,
            "<figcaption>{}</figcaption></figure>",
            format::html(&self.caption)
        );
        out
    }

    fn draw(&self, size: Size, out: &mut String) {
        open(size, &self.title, out);
        self.grid(size, out);
        for (value, name) in &self.borders {
            let x = size.x(self.x.scale.place(*value));
            let (top, height) = size.down();
            let _ = write!(
                out,
                "<path class=border d=\"M{x:.1} {top:.1}V{:.1}\"/>",
                top + height
            );
            if size.width > 500.0 {
                let _ = write!(
                    out,
                    "<text class=note x={:.1} y={:.1}>{}</text>",
                    x + 4.0,
                    top + 12.0,
                    format::html(name)
                );
            }
        }
        if let Some((value, _)) = &self.level {
            level(size, size.y(self.y.scale.place(*value)), out);
        }
        for line in &self.lines {
            self.line(size, line, out);
        }
        out.push_str("<g class=hover></g></svg>");
    }

    fn grid(&self, size: Size, out: &mut String) {
        let (left, width) = size.across();
        let (top, height) = size.down();
        let across = self.x.scale.ticks(size.labels(), self.x.unit);
        let mut free_from = f64::NEG_INFINITY;
        for (value, label) in across {
            let x = size.x(self.x.scale.place(value));
            let _ = write!(
                out,
                "<path class=grid d=\"M{x:.1} {top:.1}V{:.1}\"/>",
                top + height
            );
            // About seven pixels a character: labels never touch.
            let half = label.chars().count() as f64 * 3.6;
            let at = x.clamp(half, size.width - half);
            if at - half >= free_from {
                free_from = at + half + 8.0;
                let _ = write!(
                    out,
                    "<text x={at:.1} y={:.1} text-anchor=middle>{}</text>",
                    top + height + 17.0,
                    format::html(&label)
                );
            }
        }
        vertical(size, &self.y, out);
        axis_titles(size, &self.x.title, &self.y.title, out);
        let _ = write!(
            out,
            "<path class=axis d=\"M{left:.1} {top:.1}V{:.1}H{:.1}\"/>",
            top + height,
            left + width
        );
    }

    fn line(&self, size: Size, line: &Line, out: &mut String) {
        if line.points.is_empty() {
            return;
        }
        let mut path = String::new();
        let mut data = String::new();
        let mut last = (f64::NAN, f64::NAN);
        for &(x, y) in &line.points {
            let (px, py) = (size.x(self.x.scale.place(x)), size.y(self.y.scale.place(y)));
            // Points of less than a third of a pixel apart are one.
            if (px - last.0).abs() < 0.33 && (py - last.1).abs() < 0.33 {
                continue;
            }
            last = (px, py);
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{px:.1} {py:.1}");
            let _ = write!(
                data,
                "{px:.1}|{py:.1}|{}|{};",
                self.x.unit.show(x),
                self.y.unit.show(y)
            );
        }
        if !path.contains('L') {
            // A single point would be invisible as a line.
            path.push_str("h0.1");
        }
        let style = line.style % LINES_MAX;
        if line.faint {
            let _ = write!(out, "<path class=\"line faint s{style}\" d=\"{path}\"/>");
            return;
        }
        let _ = write!(
            out,
            "<path class=\"line s{style}\" d=\"{path}\" data-name=\"{}\" data-points=\"{}\"/>",
            format::html(&line.name),
            data.trim_end_matches(';')
        );
    }
}

/// The element's start: how big, what it is for those who cannot see it.
pub fn open(size: Size, title: &str, out: &mut String) {
    let title = format::html(title);
    let _ = write!(
        out,
        "<svg class=\"chart {}\" viewBox=\"0 0 {} {}\" role=img tabindex=0 aria-label=\"{title}. Arrow keys show values; the tables have them too.\">",
        size.class, size.width, size.height
    );
}

/// Horizontal lines and the labels beside them.
pub fn vertical(size: Size, axis: &Axis, out: &mut String) {
    let (left, width) = size.across();
    for (value, label) in axis.scale.ticks(6, axis.unit) {
        let y = size.y(axis.scale.place(value));
        let _ = write!(
            out,
            "<path class=grid d=\"M{left:.1} {y:.1}H{:.1}\"/><text x={:.1} y={:.1} text-anchor=end>{}</text>",
            left + width,
            left - 7.0,
            y + 4.0,
            format::html(&label)
        );
    }
}

/// The titles of both axes: the vertical one stands above its axis, where it can be read without turning the head.
pub fn axis_titles(size: Size, x: &str, y: &str, out: &mut String) {
    let (left, width) = size.across();
    let _ = write!(
        out,
        "<text class=title x={:.1} y={:.1} text-anchor=middle>{}</text><text class=title x=4 y=14>{}</text>",
        left + width / 2.0,
        size.height - 10.0,
        format::html(x),
        format::html(y)
    );
}

/// A horizontal mark; its name is in the legend, where nothing covers it.
pub fn level(size: Size, y: f64, out: &mut String) {
    let (left, width) = size.across();
    let _ = write!(
        out,
        "<path class=level d=\"M{left:.1} {y:.1}H{:.1}\"/>",
        left + width
    );
}

/// A horizontal mark in a legend.
pub fn level_legend(name: &str, out: &mut String) {
    let _ = write!(
        out,
        "<li><svg class=sample width=34 height=10 aria-hidden=true><path class=level d=\"M1 5H33\"/></svg>{}</li>",
        format::html(name)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(name: &str, points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: name.into(),
            caption: name.into(),
            x: Axis {
                title: name.into(),
                scale: Scale::from_zero(10.0),
                unit: Unit::Seconds,
            },
            y: Axis {
                title: "requests/s".into(),
                scale: Scale::from_zero(100.0),
                unit: Unit::Count,
            },
            lines: vec![Line {
                name: name.into(),
                style: 0,
                points,
                faint: false,
            }],
            borders: vec![(5.0, name.into())],
            level: Some((90.0, name.into())),
        }
    }

    #[test]
    fn a_value_stands_where_its_axis_says() {
        let text = chart("a", vec![(0.0, 0.0), (5.0, 50.0), (10.0, 100.0)]).figure();
        // Wide: the plot is 78 to 942 across and 30 to 328 down.
        assert!(
            text.contains("M78.0 328.0L510.0 179.0L942.0 30.0"),
            "{text}"
        );
        assert!(text.contains("510.0|179.0|5 s|50;"), "{text}");
    }

    #[test]
    fn hostile_names_stay_names() {
        let text = chart("\"><script>alert(1)</script>", vec![(1.0, 1.0)]).figure();
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn nothing_and_no_numbers_can_be_drawn() {
        for points in [vec![], vec![(f64::NAN, f64::INFINITY), (1.0, f64::NAN)]] {
            let text = chart("a", points).figure();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
