//! Durations and columns for people.

use std::time::Duration;

/// A duration in its two largest units: `850ms`, `34s`, `3m12s`, `2h5m`, `3d4h`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{smaller}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => pair(minutes, "m", seconds % 60, "s"),
        3600..86_400 => pair(hours, "h", minutes % 60, "m"),
        _ => pair(days, "d", hours % 24, "h"),
    }
}

/// The same for milliseconds.
pub(super) fn span_of(milliseconds: u64) -> String {
    span(Duration::from_millis(milliseconds))
}

/// A latency with its significant digits: `0.4ms`, `12ms`, `1.2s`.
pub(super) fn latency(microseconds: Option<u64>) -> String {
    let Some(microseconds) = microseconds else {
        return "-".to_owned();
    };
    let latency = Duration::from_micros(microseconds);
    match microseconds {
        0..10_000 => format!("{:.1}ms", latency.as_secs_f64() * 1000.0),
        10_000..1_000_000 => format!("{}ms", latency.as_millis()),
        _ => format!("{:.1}s", latency.as_secs_f64()),
    }
}

/// Rows in columns as wide as their widest cell, without trailing blanks.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let padded = widths
            .iter()
            .zip(row)
            .map(|(width, cell)| format!("{cell:<width$}"));
        let line = padded.collect::<Vec<_>>().join("   ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (milliseconds, expected) in [
            (0, "0ms"),
            (850, "850ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (192_000, "3m12s"),
            (3_600_000, "1h"),
            (7_500_000, "2h5m"),
            (273_600_000, "3d4h"),
        ] {
            assert_eq!(span_of(milliseconds), expected);
        }
    }

    #[test]
    fn a_latency_has_its_significant_digits() {
        assert_eq!(latency(None), "-");
        assert_eq!(latency(Some(412)), "0.4ms");
        assert_eq!(latency(Some(12_345)), "12ms");
        assert_eq!(latency(Some(1_234_567)), "1.2s");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = columns(&[row(["A", "B"]), row(["long", ""]), row(["ü", "x"])]);
        assert_eq!(text, "A      B\nlong\nü      x\n");
    }
}
