//! The replicas that each autoscaler orders over each trace, as one SVG.

use std::fmt::Write as _;

use crate::world::Trace;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 96.0;
const LEFT: f64 = 30.0;
const GAP: f64 = 34.0;
const MOST: f64 = 20.0;
const COLORS: [&str; 4] = ["#0b6e4f", "#c44536", "#3d5a98", "#b07d12"];

/// Time and replicas of one autoscaler.
pub type History = Vec<(f64, i32)>;

/// One panel a trace; the grey area is what the arrivals need.
pub fn draw(names: &[&str], panels: &[(Trace, Vec<History>)]) -> String {
    let height = GAP + panels.len() as f64 * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        LEFT + WIDTH + 20.0
    );
    for (i, name) in names.iter().enumerate() {
        let x = LEFT + 150.0 * i as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"10\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"16\">{name}</text>",
            COLORS[i],
            x + 20.0
        );
    }
    let x = LEFT + 150.0 * names.len() as f64;
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"6\" width=\"14\" height=\"12\" fill=\"#dddddd\"/><text x=\"{}\" y=\"16\">needed</text>",
        x + 20.0
    );
    for (i, (trace, histories)) in panels.iter().enumerate() {
        panel(&mut svg, trace, histories, GAP + 18.0 + i as f64 * (HEIGHT + GAP));
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, trace: &Trace, histories: &[History], top: f64) {
    let x = |t: f64| LEFT + WIDTH * t / trace.seconds;
    let y = |replicas: f64| top + HEIGHT * (1.0 - replicas / MOST);
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", top - 4.0, trace.name);
    for mark in [0.0, 10.0, 20.0] {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#eeeeee\"/><text x=\"{2:.0}\" \
             y=\"{3:.1}\" text-anchor=\"end\" font-size=\"10\">{mark}</text>",
            LEFT + WIDTH,
            y(mark),
            LEFT - 4.0,
            y(mark) + 3.0
        );
    }
    let mut needed = String::new();
    for t in (0..=400).map(|i| f64::from(i) * trace.seconds / 400.0) {
        let _ = write!(needed, "{:.1},{:.1} ", x(t), y(trace.needed(t)));
    }
    let _ = writeln!(
        svg,
        "<polygon fill=\"#dddddd\" points=\"{:.1},{2:.1} {needed}{:.1},{2:.1}\"/>",
        x(0.0),
        x(trace.seconds),
        y(0.0)
    );
    // Ours last, above the others.
    for (which, history) in histories.iter().enumerate().rev() {
        let (mut points, mut last) = (String::new(), None);
        for (t, replicas) in history {
            if last != Some(*replicas) {
                let _ = write!(points, "{:.1},{:.1} ", x(*t), y(f64::from(last.unwrap_or(*replicas))));
                let _ = write!(points, "{:.1},{:.1} ", x(*t), y(f64::from(*replicas)));
                last = Some(*replicas);
            }
        }
        let _ = write!(points, "{:.1},{:.1}", x(trace.seconds), y(f64::from(last.unwrap_or(0))));
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" points=\"{points}\"/>",
            COLORS[which],
            if which == 0 { 2.2 } else { 1.4 }
        );
    }
}
