//! Durations, counts and paragraphs for people.

/// Lines of prose are at most this wide, so that they can be read on the usual terminal.
const WIDTH: usize = 110;

/// A time in its two largest units: `34s`, `3m12s`, `2h5m`, `3d4h`.
pub(crate) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, smaller: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{smaller}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => pair(minutes, "m", seconds % 60, "s"),
        3600..86_400 => pair(hours, "h", minutes % 60, "m"),
        _ => pair(days, "d", hours % 24, "h"),
    }
}

/// This many of something.
pub(crate) fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}

/// The text in lines, each behind `indent`. Words that are longer than a line stay whole.
pub(crate) fn wrapped(indent: &str, text: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = indent.len() + line.chars().count() + word.chars().count();
        if !line.is_empty() && length >= WIDTH {
            out.extend([indent, &line, "\n"]);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.extend([indent, &line, "\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_two_largest_units() {
        for (seconds, expected) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (7500, "2h5m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn prose_is_wrapped_between_words() {
        let text = "word ".repeat(40);
        let wrapped = wrapped("    ", &text);
        assert!(
            wrapped
                .lines()
                .all(|line| line.len() <= WIDTH && line.starts_with("    word"))
        );
        assert_eq!(wrapped.split_whitespace().count(), 40);
        assert_eq!(super::wrapped("  ", ""), "");
    }
}
