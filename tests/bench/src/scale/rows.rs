//! The figures of a run, with what they must reach.

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure.
    pub(crate) measured: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What it must not exceed, if anything.
    pub(crate) limit: Option<f64>,
}

impl Row {
    /// A figure that must reach nothing.
    pub(crate) fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            measured,
            unit,
            limit: None,
        }
    }

    /// The same, where less than `limit`, or that itself, is wanted.
    pub(crate) fn at_most(self, limit: f64) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Whether it exceeds its limit.
    pub(crate) fn is_missed(&self) -> bool {
        self.limit.is_some_and(|limit| self.measured > limit)
    }

    /// The figure and its unit.
    pub(crate) fn figure(&self) -> String {
        self.with_unit(self.measured)
    }

    /// What it must not exceed.
    pub(crate) fn target(&self) -> String {
        self.limit
            .map_or_else(|| "–".to_owned(), |limit| format!("≤ {}", self.with_unit(limit)))
    }

    /// The word of the verdict.
    pub(crate) fn verdict(&self) -> &'static str {
        match (self.limit, self.is_missed()) {
            (None, _) => "–",
            (Some(_), false) => "met",
            (Some(_), true) => "MISSED",
        }
    }

    fn with_unit(&self, value: f64) -> String {
        let digits = match value.abs() {
            // A count has none.
            _ if value.fract() == 0.0 => 0,
            value if value < 10.0 => 2,
            value if value < 100.0 => 1,
            _ => 0,
        };
        let text = format!("{value:.digits$} {}", self.unit);
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_its_limit_meets_it_and_one_above_misses() {
        let row = |measured| Row::new("writes", measured, "").at_most(50.0);
        assert_eq!((row(50.0).verdict(), row(50.5).verdict()), ("met", "MISSED"));
        assert_eq!(Row::new("writes", 7.0, "").verdict(), "–");
    }

    #[test]
    fn a_figure_has_three_digits_that_count_and_a_count_none_after_the_point() {
        let figure = |value| Row::new("memory", value, "MiB").figure();
        assert_eq!(
            [figure(97.25), figure(3.0), figure(0.123), figure(1234.5)],
            ["97.2 MiB", "3 MiB", "0.12 MiB", "1234 MiB"]
        );
    }
}
