//! The table of docs/testbed.md says which test shows which promise; here it is held to the tests that there are.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::scenarios;

    /// The section of the documentation that says where each promise is shown.
    const HEADING: &str = "# Which promise is shown where";

    /// Its rows; F8 is not promised yet.
    const ROWS: &str = "F1 F2 F3 F4 F5 F6 F7 F9 F10 F11 F12 F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24 F25 \
                        O1 O2 O3 O4 O5 O6 O7 O8 O9 O10 O11 O12 O13 O14 O15 O16 O17 O18 O19 O20 O21 O22 O23 \
                        A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15 A16 \
                        B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 B17 B18 B19 B20 B21";

    #[test]
    fn the_documentation_names_tests_that_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join("docs/testbed.md")).unwrap();
        let (_, section) = text.split_once(HEADING).unwrap();
        let rows = section.lines().filter(|line| {
            ["| F", "| O", "| A", "| B"]
                .iter()
                .any(|row| line.starts_with(row))
        });
        let mut named = Vec::new();
        for row in rows {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            named.push(cells[1]);
            let alone = tests_of(cells[4], |file| root.join("tests/lab/promises").join(file));
            let on_a_cluster = tests_of(cells[5], |file| scenario(&root, file));
            assert!(alone + on_a_cluster > 0, "{row}");
        }
        assert_eq!(named.join(" "), ROWS);
    }

    /// How many files a cell names; each is there, and so is each test that is named beside its file.
    fn tests_of(cell: &str, find: impl Fn(&str) -> PathBuf) -> usize {
        let mut files = 0;
        let mut code = String::new();
        for word in cell.split('`').skip(1).step_by(2) {
            if Path::new(word).extension() == Some(OsStr::new("rs")) {
                let path = if word.contains('/') {
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(word)
                } else {
                    find(word)
                };
                code = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {error}"));
                files += 1;
            } else {
                assert!(code.contains(&format!("fn {word}(")), "{word} is not in its file");
            }
        }
        files
    }

    fn scenario(root: &Path, file: &str) -> PathBuf {
        let mut files = scenarios::files(root).unwrap().into_iter();
        let found = files.find(|path| path.file_name() == Some(OsStr::new(file)));
        found.unwrap_or_else(|| panic!("{file} is no scenario"))
    }
}
