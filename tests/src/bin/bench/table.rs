use std::fmt::Write as _;

use crate::{
    contender::Contender,
    reading::Reading,
    report::{Outcome, Report},
    test::{Column, Test},
};

/// Who all others are compared with.
const BASE: &str = "adit";

/// What there is without a tunnel.
const BARE: &str = "veth";

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
        let base = report.outcome(BASE, test.name()).filter(|_| outcomes.len() > 1);
        let base = base.map(Outcome::median);
        let rows = outcomes.iter().map(|outcome| row(outcome, base.as_ref(), test.columns()));
        let mut rows: Vec<Vec<String>> = rows.collect();
        rows.insert(0, heading(base.is_some(), test.columns()));
        let _ = writeln!(text, "\n{}: {test}", test.name());
        text.push_str(&aligned(&rows));
    }

    text
}

/// Lays the medians of all paths out in one table, a row for each.
///
/// The shares say how much that is of what the path gives without a tunnel.
pub(crate) fn sweep_table(report: &Report, contenders: &[Contender], tests: &[Test]) -> String {
    let mut heading = vec![String::new()];
    for contender in contenders {
        heading.push(contender.name().to_owned());
        if contender.name() != BARE {
            heading.push("of it".to_owned());
        }
    }
    let mut rows = vec![heading];
    for test in tests {
        let Some(column) = test.columns().first() else { continue };
        let median = |name: &str| report.outcome(name, test.name())?.median().figure(column.figure);
        let mut cells = vec![test.to_string()];
        for contender in contenders {
            let own = median(contender.name());
            let shown = own.map(|own| format!("{own:.*}", column.decimals));
            cells.push(shown.unwrap_or_else(|| "–".to_owned()));
            if contender.name() != BARE {
                let share = own.zip(median(BARE)).filter(|(_, bare)| *bare > 0.0);
                let share = share.map(|(own, bare)| format!("{:.0} %", own / bare * 100.0));
                cells.push(share.unwrap_or_else(|| "–".to_owned()));
            }
        }
        rows.push(cells);
    }

    format!("{}\n\n{}", report.machine.describe(), aligned(&rows))
}

fn heading(with_ratios: bool, columns: &[Column]) -> Vec<String> {
    let mut cells = vec![String::new()];
    for (index, column) in columns.iter().enumerate() {
        cells.push(column.heading.to_owned());
        if index == 0 {
            cells.push("range".to_owned());
        }
        if with_ratios {
            cells.push(format!("{BASE} is"));
        }
    }

    cells
}

fn row(outcome: &Outcome, base: Option<&Reading>, columns: &[Column]) -> Vec<String> {
    let median = outcome.median();
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
        let Some(base) = base else { continue };
        let ratio = base.figure(column.figure).zip(own).filter(|(_, own)| *own > 0.0);
        let ratio = ratio.map(|(base, own)| format!("{:.2} ×", base / own));
        cells.push(ratio.unwrap_or_else(|| "–".to_owned()));
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
