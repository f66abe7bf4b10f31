//! Columns for people.

use super::{Screen, Tone};

/// The space between two columns.
const GAP: &str = "   ";

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What it says.
    pub(crate) text: String,
    /// How it stands out.
    pub(crate) tone: Tone,
}

impl Cell {
    /// A cell in this tone.
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Rows in columns as wide as their widest cell, without trailing blanks, each behind `indent`.
pub(crate) fn columns(screen: Screen, indent: &str, rows: &[Vec<Cell>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        let filled = row.iter().rposition(|cell| !cell.text.is_empty());
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if filled.is_none_or(|last| index > last) {
                break;
            }
            line.push_str(&screen.paint(cell.tone, &cell.text));
            if filled != Some(index) {
                // Padded behind the colour, which has no width.
                let missing = width.saturating_sub(cell.text.chars().count());
                line.push_str(&" ".repeat(missing));
                line.push_str(GAP);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["NODE".into(), "CP1".into(), "AGE".into()],
            vec![Cell::new(Tone::Bad, "worker-1"), "Up".into(), Cell::default()],
        ];
        let text = columns(Screen::plain(), "  ", &rows);
        assert_eq!(text, "  NODE       CP1   AGE\n  worker-1   Up\n");
    }
}
