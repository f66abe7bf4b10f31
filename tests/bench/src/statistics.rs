//! Medians and spreads of a few samples.

/// The middle of some samples and the quarters around it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The spread of the samples; none of none.
pub(crate) fn spread(samples: &[f64]) -> Option<Spread> {
    let sorted = sorted(samples);
    Some(Spread {
        median: quantile(&sorted, 0.5)?,
        low: quantile(&sorted, 0.25)?,
        high: quantile(&sorted, 0.75)?,
    })
}

/// In ascending order; what is not a number goes last.
pub(crate) fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which `share` of the sorted samples lie, between two samples in proportion.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of a few thousand samples"
)]
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = sorted.len().checked_sub(1)? as f64 * share.clamp(0.0, 1.0);
    let (below, above) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(quantile(&sorted(&[4.0, 1.0, 3.0, 2.0]), 0.5), Some(2.5));
    }

    #[test]
    fn one_outlier_moves_no_median_and_no_quarter() {
        let quiet = spread(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 500.0]).unwrap(), quiet);
        assert_eq!((quiet.low, quiet.high), (2.0, 4.0));
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_high_quantile_is_near_the_largest() {
        let samples: Vec<_> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.99), Some(99.0));
        assert_eq!(quantile(&samples, 1.0), Some(100.0));
    }
}
