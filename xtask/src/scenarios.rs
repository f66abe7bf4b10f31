//! The scenarios by name, so that one of them can be run alone.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the scenarios are, one folder for each state that they start from.
pub(crate) const FOLDER: &str = "tests/scenarios";

/// The file of every scenario, sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for state in entries(&root.join(FOLDER))? {
        if state.is_dir() {
            files.extend(entries(&state)?);
        }
    }
    files.retain(|file| file.extension() == Some(OsStr::new("rs")));
    files.sort_unstable();
    Ok(files)
}

/// Fails with the names that there are unless each of `names` is part of the name of a scenario or of one of its tests:
/// what selects no test would pass.
pub(crate) fn check(root: &Path, names: &[String]) -> Result<()> {
    let mut known = Vec::new();
    let mut texts = Vec::new();
    for file in files(root)? {
        texts.push(fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?);
        known.extend(name(&file));
    }
    for name in names {
        let is_a_test = texts
            .iter()
            .any(|text| tests(text).any(|test| test.contains(name)));
        if !is_a_test && !known.iter().any(|scenario| scenario.contains(name)) {
            bail!(
                "no scenario is named {name}; there are:\n  {}",
                known.join("\n  ")
            );
        }
    }
    Ok(())
}

/// The state that a scenario starts from, and its own name: `bare::a_promise`, as in the names of its tests.
fn name(file: &Path) -> Option<String> {
    let state = file.parent()?.file_name()?.to_str()?;
    Some(format!("{state}::{}", file.file_stem()?.to_str()?))
}

fn tests(text: &str) -> impl Iterator<Item = &str> {
    let functions = text.lines().filter_map(|line| line.strip_prefix("async fn "));
    functions.filter_map(|function| function.split('(').next())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("failed to read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(failed)?;
    entries
        .map(|entry| Ok(entry.with_context(failed)?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        super::check(&root, &[name.to_owned()])
    }

    #[test]
    fn a_scenario_is_known_by_its_file_by_its_tests_and_by_its_state() {
        for name in [
            "a_lost_master_costs_no_worker",
            "a_killed_apiserver_costs_no_worker",
            "bare::",
        ] {
            check(name).unwrap();
        }
    }

    #[test]
    fn a_name_that_selects_nothing_is_refused_with_those_that_there_are() {
        let refusal = check("a_lost_mister").unwrap_err().to_string();
        assert!(
            refusal.contains("protecting::a_lost_master_costs_no_worker"),
            "{refusal}"
        );
    }

    #[test]
    fn every_scenario_is_part_of_the_program_that_runs_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let main = fs::read_to_string(root.join(FOLDER).join("main.rs")).unwrap();
        for file in files(&root).unwrap() {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            assert!(main.contains(&format!("mod {stem};\n")), "{stem} is not run");
        }
    }
}
