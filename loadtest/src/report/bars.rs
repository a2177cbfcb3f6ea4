//! Bars: what each view counted as admitted in each window, against the maximum.

use super::{
    chart::{Axis, NARROW, Size, WIDE, axis_titles, level, level_legend, open, vertical},
    format,
    scale::{Scale, Unit},
};
use std::fmt::Write as _;

/// Bars that stand together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are of, for the axis.
    pub label: String,
    /// The whole of it, for the hover.
    pub name: String,
    /// A sign above them, so that a verdict needs no colour.
    pub sign: &'static str,
    /// One for each view, in the chart's order; none where it was not asked.
    pub bars: Vec<Option<u64>>,
}

/// A bar chart.
#[derive(Clone, Debug)]
pub struct Bars {
    pub title: String,
    pub caption: String,
    pub x_title: String,
    pub y_title: String,
    /// The views, for the legend.
    pub views: Vec<String>,
    pub groups: Vec<Group>,
    /// The line that no bar may pass, and its name.
    pub max: (u64, String),
}

impl Bars {
    /// A figure with both drawings, its legend and its caption.
    pub fn figure(&self) -> String {
        let mut out = format!("<figure><h3>{}</h3>", format::html(&self.title));
        out.push_str("<ul class=legend>");
        for (at, view) in self.views.iter().enumerate() {
            let _ = write!(
                out,
                "<li><svg class=sample width=18 height=12 aria-hidden=true><rect class=\"bar s{at}\" width=18 height=12 /></svg>{}</li>",
                format::html(view)
            );
        }
        level_legend(&self.max.1, &mut out);
        out.push_str("</ul>");
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
        let highest = self.groups.iter().flat_map(|group| &group.bars).flatten();
        let highest = highest.copied().max().unwrap_or(0).max(self.max.0);
        // Room above for the signs.
        let scale = Scale::from_zero(highest as f64 * 1.12);
        let axis = Axis {
            title: self.y_title.clone(),
            scale,
            unit: Unit::Count,
        };
        vertical(size, &axis, out);
        axis_titles(size, &self.x_title, &self.y_title, out);
        let (left, width) = size.across();
        let (top, height) = size.down();
        let each = width / self.groups.len().max(1) as f64;
        let bar = (each * 0.78 / self.views.len().max(1) as f64).min(26.0);
        let border = top + (1.0 - scale.place(self.max.0 as f64)) * height;
        let mut free_from = f64::NEG_INFINITY;
        for (at, group) in self.groups.iter().enumerate() {
            let middle = left + (at as f64 + 0.5) * each;
            let begin = middle - bar * self.views.len() as f64 / 2.0;
            // Signs stand above the bars and above the maximum's line.
            let mut tallest = border;
            let mut rows = String::new();
            for (view, value) in group.bars.iter().enumerate() {
                let Some(value) = value else { continue };
                let tall = scale.place(*value as f64) * height;
                tallest = tallest.min(top + height - tall);
                let _ = write!(
                    out,
                    "<rect class=\"bar s{view}\" x={:.1} y={:.1} width={:.1} height={:.1} />",
                    begin + view as f64 * bar,
                    top + height - tall,
                    (bar - 1.0).max(0.5),
                    tall.max(0.5)
                );
                let name = self.views.get(view).map_or("", String::as_str);
                let _ = write!(rows, "{}|{};", name, format::count(*value));
            }
            let _ = write!(
                out,
                "<text class=sign x={middle:.1} y={:.1} text-anchor=middle>{}</text>",
                tallest - 5.0,
                group.sign
            );
            let half = group.label.chars().count() as f64 * 3.6;
            if middle - half >= free_from {
                free_from = middle + half + 8.0;
                let _ = write!(
                    out,
                    "<text x={middle:.1} y={:.1} text-anchor=middle>{}</text>",
                    top + height + 17.0,
                    format::html(&group.label)
                );
            }
            let _ = write!(
                out,
                "<rect class=zone x={:.1} y={top:.1} width={each:.1} height={height:.1} data-name=\"{}\" data-rows=\"{}\"/>",
                left + at as f64 * each,
                format::html(&group.name),
                format::html(rows.trim_end_matches(';'))
            );
        }
        level(size, border, out);
        let _ = write!(
            out,
            "<path class=axis d=\"M{left:.1} {top:.1}V{:.1}H{:.1}\"/><g class=hover></g></svg>",
            top + height,
            left + width
        );
    }
}
