use std::fmt::Write as _;

use crate::{
    contender::Contender,
    report::{Outcome, Report},
    test::{Column, Test},
};

/// Who all others are compared with.
const BASE: &str = "adit";

/// Lays the medians out for people, a table for each test.
///
/// The ratios say how many times the other's figure is Adit's.
pub(crate) fn table(report: &Report, contenders: &[Contender], tests: &[Test]) -> String {
    let mut text = format!("{}\n", report.machine.describe());
    for test in tests {
        // The order in which contenders were measured differs from round to round.
        let outcomes = contenders.iter().map(Contender::name);
        let outcomes: Vec<_> =
            outcomes.filter_map(|name| report.outcome(name, test.name())).collect();
        if outcomes.is_empty() {
            continue;
        }
        let rows = outcomes.iter().map(|outcome| row(outcome, report, test.columns()));
        let mut rows: Vec<Vec<String>> = rows.collect();
        rows.insert(0, heading(test.columns()));
        let _ = writeln!(text, "\n{}: {test}", test.name());
        text.push_str(&aligned(&rows));
    }

    text
}

fn heading(columns: &[Column]) -> Vec<String> {
    let mut cells = vec![String::new()];
    for (index, column) in columns.iter().enumerate() {
        cells.push(column.heading.to_owned());
        if index == 0 {
            cells.push("range".to_owned());
        }
        cells.push("adit is".to_owned());
    }

    cells
}

fn row(outcome: &Outcome, report: &Report, columns: &[Column]) -> Vec<String> {
    let median = outcome.median();
    let base = report.outcome(BASE, outcome.test.name()).map(Outcome::median);
    let mut cells = vec![outcome.contender.name().to_owned()];
    for (index, column) in columns.iter().enumerate() {
        let show = |value: f64| format!("{value:.*}", column.decimals);
        let own = median.figure(column.figure);
        cells.push(own.map_or_else(|| "–".to_owned(), show));
        if index == 0 {
            let range = outcome.range(column.figure);
            let range = range.map(|(low, high)| format!("{}–{}", show(low), show(high)));
            cells.push(range.unwrap_or_else(|| "–".to_owned()));
        }
        let base = base.as_ref().and_then(|base| base.figure(column.figure));
        let ratio = base.zip(own).filter(|(_, own)| *own > 0.0).map(|(base, own)| base / own);
        cells.push(ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2} ×")));
    }

    cells
}

/// Aligns the first column to the left and all others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match index {
                0 => write!(text, "  {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }

    text
}
