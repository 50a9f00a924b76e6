use std::fmt::Write as _;

use crate::{
    contender::Contender,
    report::{Outcome, Report},
    test::{Better, Column, Test},
};

const COLUMNS: usize = 2;
const MARGIN: f64 = 24.0;
const GAP: f64 = 36.0;
const PANEL_WIDTH: f64 = 460.0;
const TITLE_HEIGHT: f64 = 62.0;
const PANEL_TITLE_HEIGHT: f64 = 26.0;
const ROW_HEIGHT: f64 = 22.0;
const BAR_HEIGHT: f64 = 14.0;
/// Room for the names of contenders.
const NAME_WIDTH: f64 = 104.0;
/// Room for figures behind the bars.
const FIGURE_WIDTH: f64 = 76.0;

const STYLE: &str = "text { font: 12px sans-serif; fill: #24292f } \
                     .title { font-size: 18px; font-weight: bold } .small { fill: #57606a } \
                     .panel { font-weight: bold } .end { text-anchor: end } \
                     .bar { fill: #a9b4c0 } .adit { fill: #1f6feb } .bare { fill: #d8dee4 } \
                     .range { stroke: #24292f; stroke-width: 1; opacity: 0.6 } \
                     .axis { stroke: #d0d7de; stroke-width: 1 }";

/// Draws the medians as bars, a panel for each test that more than one contender took, with the
/// range over the rounds.
pub(crate) fn picture(report: &Report, contenders: &[Contender], tests: &[Test]) -> String {
    let panels: Vec<_> =
        tests.iter().filter_map(|test| Panel::new(report, contenders, test)).collect();
    let mut body = String::new();
    let mut top = MARGIN + TITLE_HEIGHT;
    for row in panels.chunks(COLUMNS) {
        let mut left = MARGIN;
        for panel in row {
            panel.draw(&mut body, left, top);
            left += PANEL_WIDTH + GAP;
        }
        let height = row.iter().map(Panel::height).fold(0.0, f64::max);
        top += height + GAP;
    }

    let columns = panels.len().clamp(1, COLUMNS) as f64;
    let width = 2.0 * MARGIN + columns * PANEL_WIDTH + (columns - 1.0) * GAP;
    let height = if panels.is_empty() { top } else { top - GAP + MARGIN };
    let machine = escaped(&report.machine.describe());
    let rounds = report.results.iter().map(|outcome| outcome.rounds.len()).max().unwrap_or(0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">Adit beside others on one machine</text>\n\
         <text class=\"small\" x=\"{MARGIN}\" y=\"{}\">{machine}; both ends and the load share it. \
         Medians of {rounds} rounds, lines show the range.</text>\n{body}</svg>\n",
        MARGIN + 16.0,
        MARGIN + 38.0,
    )
}

/// The bars of one test.
struct Panel {
    title: String,
    column: Column,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    class: &'static str,
    median: f64,
    low: f64,
    high: f64,
}

impl Panel {
    fn new(report: &Report, contenders: &[Contender], test: &Test) -> Option<Self> {
        let column = *test.columns().first()?;
        let outcomes =
            contenders.iter().filter_map(|contender| report.outcome(contender.name(), test.name()));
        let mut rows: Vec<_> = outcomes.filter_map(|outcome| Row::new(outcome, column)).collect();
        match column.better {
            Better::More => rows.sort_by(|a, b| b.median.total_cmp(&a.median)),
            Better::Less => rows.sort_by(|a, b| a.median.total_cmp(&b.median)),
        }

        (rows.len() > 1).then(|| Self { title: test.to_string(), column, rows })
    }

    fn height(&self) -> f64 {
        PANEL_TITLE_HEIGHT + self.rows.len() as f64 * ROW_HEIGHT
    }

    fn draw(&self, svg: &mut String, left: f64, top: f64) {
        let hint = match self.column.better {
            Better::More => "",
            Better::Less => ", less is better",
        };
        let _ = writeln!(
            svg,
            "<text class=\"panel\" x=\"{left}\" y=\"{:.1}\">{}</text>\n\
             <text class=\"small end\" x=\"{:.1}\" y=\"{:.1}\">{}{hint}</text>",
            top + 12.0,
            escaped(&self.title),
            left + PANEL_WIDTH,
            top + 12.0,
            self.column.heading,
        );
        let longest = self.rows.iter().map(|row| row.high).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (PANEL_WIDTH - NAME_WIDTH - FIGURE_WIDTH) / longest;
        let axis = left + NAME_WIDTH;
        let mut y = top + PANEL_TITLE_HEIGHT;
        for row in &self.rows {
            let middle = y + BAR_HEIGHT / 2.0;
            let _ = writeln!(
                svg,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
                 <rect class=\"{}\" x=\"{axis:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
                 height=\"{BAR_HEIGHT}\"/>\
                 <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" \
                 y2=\"{middle:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{:.*}</text>",
                axis - 8.0,
                middle + 4.0,
                escaped(&row.name),
                row.class,
                row.median * scale,
                axis + row.low * scale,
                axis + row.high * scale,
                axis + row.high * scale + 8.0,
                middle + 4.0,
                self.column.decimals,
                row.median,
            );
            y += ROW_HEIGHT;
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{axis:.1}\" x2=\"{axis:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            top + PANEL_TITLE_HEIGHT - 4.0,
            y - 4.0,
        );
    }
}

impl Row {
    fn new(outcome: &Outcome, column: Column) -> Option<Self> {
        let (low, high) = outcome.range(column.figure)?;
        let class = match outcome.contender {
            Contender::Adit(_) | Contender::Streams(_) => "adit",
            Contender::Veth => "bare",
            Contender::WireGuard(_)
            | Contender::OpenVpn
            | Contender::Quincy
            | Contender::PointToPoint(_) => "bar",
        };

        Some(Self {
            name: outcome.contender.name().to_owned(),
            class,
            median: outcome.median().figure(column.figure)?,
            low,
            high,
        })
    }
}

/// Writes text so that it is only text in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Machine, reading::Reading};

    #[test]
    fn every_contender_has_a_bar_as_long_as_its_median() {
        let machine = Machine::read();
        let test = Test::parse("tcp1", &machine).expect("there is such a test");
        let contenders = Contender::all(1);
        let mut report = Report::new(machine);
        for (contender, rate) in contenders.iter().zip([8.0, 4.0]) {
            report.add(contender, &test, Reading::default().with("gbit_s", rate));
        }

        let svg = picture(&report, &contenders, &[test]);

        let whole = PANEL_WIDTH - NAME_WIDTH - FIGURE_WIDTH;
        assert!(svg.contains(&format!(
            "<rect class=\"bare\" x=\"128.0\" y=\"112.0\" width=\"{whole:.1}\""
        )));
        assert!(svg.contains(&format!("width=\"{:.1}\"", whole / 2.0)), "{svg}");
    }

    #[test]
    fn names_cannot_end_an_element() {
        assert_eq!(escaped("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
