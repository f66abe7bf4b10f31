//! `make test`: everything, from formatting to the real cluster, cheapest part first, each part timed.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use trivet_testbed::{Progress, Stopwatch};
use trivet_testbed::{binaries, down, images, setup};

use crate::generate;

/// Which parts of the suite to run.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Formatting, lints, generated files, and all tests that need no cluster.
    Unit,
    /// The scenarios on the testbed.
    Cluster,
    /// Both, and afterwards the testbed is taken down.
    All,
}

/// Runs the parts of `tier`; the first one that fails ends it.
pub(crate) fn run(root: &Path, tier: Tier, keep: bool) -> Result<()> {
    let mut suite = Suite {
        root,
        progress: Progress::new(),
        taken: Vec::new(),
    };
    let outcome = suite.run(tier, keep);
    suite.report();
    outcome
}

struct Suite<'root> {
    root: &'root Path,
    progress: Progress,
    /// What each finished part took.
    taken: Vec<(&'static str, Duration)>,
}

impl Suite<'_> {
    fn run(&mut self, tier: Tier, keep: bool) -> Result<()> {
        self.part("Debian packages", |suite| setup::packages(&suite.progress))?;
        if tier != Tier::Cluster {
            self.unit()?;
        }
        if tier != Tier::Unit {
            self.cluster(keep)?;
        }
        Ok(())
    }

    fn unit(&mut self) -> Result<()> {
        self.part("formatting", |suite| suite.cargo("fmt --all --check"))?;
        self.part("lints", |suite| {
            suite.cargo("clippy --workspace --all-features --all-targets --test * -- --deny warnings")
        })?;
        self.part("generated files", |suite| generate::run(suite.root, true))?;
        self.part("unit tests", |suite| {
            suite.cargo("test --workspace --all-features")
        })?;
        // What is ignored where nothing is optimised, but for the searches, which have no end of their own.
        self.part("large fleets", |suite| {
            let optimised = "--config profile.dev.package.trivet-proxy.opt-level=3";
            let alone = "--ignored --skip one_schedule --skip thousands_of_schedules";
            suite.cargo(&format!(
                "test --workspace --all-features {optimised} --test simulation -- {alone}"
            ))
        })?;
        // Two labs at a time on two cores: its promises are about milliseconds.
        self.part("lab", |suite| {
            suite.cargo("test --workspace --all-features --no-fail-fast --test lab -- --nocapture")
        })
    }

    fn cluster(&mut self, keep: bool) -> Result<()> {
        self.part("Kubernetes, etcd and helm", |suite| {
            binaries::ensure(&suite.progress).map(drop)
        })?;
        self.part("images", |suite| images::build(&suite.progress).map(drop))?;
        self.part("scenarios", |suite| {
            let scenarios = scenarios(suite.root)?;
            let named: Vec<_> = scenarios.iter().map(|name| format!("--test {name}")).collect();
            // The whole workspace with all features, as for the unit tests: other features would build it all again.
            // One cluster for all scenarios, so one at a time.
            let all = "test --workspace --all-features --no-fail-fast";
            suite.cargo(&format!(
                "{all} {} -- --test-threads=1 --nocapture",
                named.join(" ")
            ))
        })?;
        if keep {
            return Ok(());
        }
        self.part("taking the testbed down", |suite| down(&suite.progress))
    }

    fn part(&mut self, name: &'static str, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.progress.step(name);
        let watch = Stopwatch::start();
        let outcome = work(self).with_context(|| format!("{name} failed"));
        self.taken.push((name, watch.elapsed()));
        outcome
    }

    fn cargo(&self, arguments: &str) -> Result<()> {
        let mut cargo = setup::cargo();
        let status = cargo
            .args(arguments.split_whitespace())
            .current_dir(self.root)
            .status();
        let status = status.context("failed to start cargo")?;
        if !status.success() {
            bail!("`cargo {arguments}` ended with {status}");
        }
        Ok(())
    }

    fn report(&self) {
        println!("\nTime taken:");
        for (name, taken) in &self.taken {
            println!("  {name:<28}{:>7.1} s", taken.as_secs_f32());
        }
    }
}

/// The scenarios are the Rust files right below tests/; each file's name is its test's.
fn scenarios(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The section of the documentation that says where each promise is shown.
    const HEADING: &str = "# Which promise is shown where";

    /// Its rows; F8 is not promised yet.
    const ROWS: &str =
        "F1 F2 F3 F4 F5 F6 F7 F9 F10 F11 F12 F13 F14 F15 F16 F17 F18 F19 F20 F21 F25 O8 O11 O12 O13 O14";

    #[test]
    fn the_documentation_names_tests_that_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join("docs/testbed.md")).unwrap();
        let (_, section) = text.split_once(HEADING).unwrap();
        let rows = section
            .lines()
            .filter(|line| line.starts_with("| F") || line.starts_with("| O"));
        let mut named = Vec::new();
        for row in rows {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            named.push(cells[1]);
            let [alone, on_a_cluster] = [(cells[4], "tests/lab/promises"), (cells[5], "tests")]
                .map(|(cell, folder)| tests_of(&root, cell, folder));
            assert!(alone + on_a_cluster > 0, "{row}");
        }
        assert_eq!(named.join(" "), ROWS);
    }

    /// How many files a cell names; each is there, and so is each test that is named beside its file.
    fn tests_of(root: &Path, cell: &str, folder: &str) -> usize {
        let mut files = 0;
        let mut code = String::new();
        for word in cell.split('`').skip(1).step_by(2) {
            if Path::new(word).extension() == Some(OsStr::new("rs")) {
                let path = if word.contains('/') {
                    root.join(word)
                } else {
                    root.join(folder).join(word)
                };
                code = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {error}"));
                files += 1;
            } else {
                assert!(code.contains(&format!("fn {word}(")), "{word} is not in its file");
            }
        }
        files
    }
}
