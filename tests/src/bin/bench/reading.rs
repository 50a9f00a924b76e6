/// What one measurement gave: named figures, the most important one first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    figures: Vec<(&'static str, f64)>,
}

impl Reading {
    /// Adds a figure.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push((name, value));
        self
    }

    /// Adds a figure if there is one.
    #[must_use]
    pub(crate) fn with_some(self, name: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(figure, _)| *figure == name).map(|(_, value)| *value)
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.figures.iter().copied()
    }

    /// Returns the median of every figure.
    pub(crate) fn median(readings: &[Self]) -> Self {
        let Some(first) = readings.first() else { return Self::default() };
        let figures = first.figures().map(|(name, _)| {
            let values = readings.iter().filter_map(|reading| reading.figure(name));
            (name, median(values.collect()))
        });

        Self { figures: figures.collect() }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_each_figure_alone() {
        let readings = [(3.0, 1.0), (1.0, 3.0), (2.0, 9.0)]
            .map(|(rate, cost)| Reading::default().with("rate", rate).with("cost", cost));

        let median = Reading::median(&readings);

        assert_eq!(median, Reading::default().with("rate", 2.0).with("cost", 3.0));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 10.0]), 3.0);
    }
}
