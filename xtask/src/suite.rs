//! `make test`: everything, from formatting to the real cluster, cheapest part first, each part timed.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use trivet_testbed::{Cluster, Progress, Stopwatch};
use trivet_testbed::{binaries, calls, down, images, setup, skew};

use crate::{scenarios, test_run};

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
    reported(root, |suite| suite.run(tier, keep))
}

/// Runs scenarios by name, whatever they need included; the cluster stays for the next run.
pub(crate) fn alone(root: &Path, names: &[String]) -> Result<()> {
    scenarios::check(root, names)?;
    reported(root, |suite| {
        suite.packages()?;
        suite.cluster(&names.join(" "))
    })
}

/// Runs what is too long for every day: outages of minutes, many upgrades, thousands of schedules, of faults in hand-overs
/// and of histories of a pool, millions of states of a hand-over, a search for inputs that break a parser, and connections
/// that come and go for hours.
pub(crate) fn soak(root: &Path, hours: u32) -> Result<()> {
    reported(root, |suite| {
        suite.packages()?;
        suite.part("thousands of schedules", |suite| {
            let schedules = "--ignored thousands_of_schedules --nocapture";
            finish(&mut suite.cargo(&format!("test {ALL} --test simulation -- {schedules}")))
        })?;
        suite.part("millions of hand-overs", |suite| {
            finish(&mut suite.cargo(&format!("test {ALL} --test handover -- --ignored")))
        })?;
        suite.part("thousands of faults in hand-overs", |suite| {
            // One after the other: each fills the machine.
            let faults = "--ignored thousands_of_runs --nocapture --test-threads=1";
            finish(&mut suite.cargo(&format!("test {ALL} --test boundaries -- {faults}")))
        })?;
        suite.part("thousands of histories", |suite| {
            let properties = format!("test {ALL} --lib --test no_history_breaks_a_promise");
            finish(suite.cargo(&properties).env("PROPTEST_CASES", "5000"))
        })?;
        suite.part("inputs that break a parser", |suite| {
            let search = "test --package trivet-proxy --test fuzz -- --nocapture";
            finish(suite.cargo(search).env("TRIVET_FUZZ_SECONDS", "600"))
        })?;
        suite.cluster("--ignored soak::")?;
        suite.take_down()?;
        suite.part("churn", |suite| {
            let churn = "test --package trivet-lab --test lab -- --ignored memory_is_bounded --nocapture";
            finish(suite.cargo(churn).env("TRIVET_CHURN_HOURS", hours.to_string()))
        })
    })
}

/// Writes the files that follow from the code; with `check` writes nothing and fails if one is stale. The test that knows
/// them is built with the features of the whole suite: others would build Kubernetes' API once more.
pub(crate) fn generate(root: &Path, check: bool) -> Result<()> {
    let mut cargo = setup::cargo();
    let test = format!("test --quiet {ALL} --test generated -- --nocapture");
    cargo.args(test.split_whitespace()).current_dir(root);
    if !check {
        cargo.env("TRIVET_GENERATE", "write");
    }
    finish(&mut cargo)
}

fn reported(root: &Path, work: impl FnOnce(&mut Suite<'_>) -> Result<()>) -> Result<()> {
    let mut suite = Suite {
        root,
        progress: Progress::new(),
        taken: Vec::new(),
    };
    let outcome = work(&mut suite);
    suite.report();
    outcome
}

/// The whole workspace with all features, whatever is run of it: other features would build everything again.
const ALL: &str = "--workspace --all-features";

/// Tests of sockets and of the lab wait most of their time: four of them use two thirds of one core, so the lab runs beside the
/// unit tests. It measures, so it comes first wherever both want the CPU; and it knows what the machine costs, from connections
/// without the proxy.
const AT_A_TIME: u8 = 4;

/// The priority of what runs beside a measurement: nice(1). It has a tenth of a CPU that both want (sched(7)).
const BESIDE: &str = "10";

/// Ends a test program that hangs, and the processes that it has started, so that the suite fails by it: cargo waits for ever.
/// The longest takes three minutes, on a machine that does much else.
const HANGS: &str = "target.'cfg(unix)'.runner=['timeout', '--kill-after=10', '600']";

/// What the properties of `make test` draw their cases from. With another seed each time, a change that has nothing to do
/// with a rare case would fail by it; `make soak` looks for those.
const SEED: &str = "1";

struct Suite<'root> {
    root: &'root Path,
    progress: Progress,
    /// What each finished part took.
    taken: Vec<(&'static str, Duration)>,
}

impl Suite<'_> {
    fn run(&mut self, tier: Tier, keep: bool) -> Result<()> {
        self.packages()?;
        // What it compiles is ready when the cluster needs it: most tests wait more than they work.
        let mut images = None;
        if tier != Tier::Cluster {
            self.checks()?;
            if tier == Tier::All {
                images = Some(images::start_beside()?);
            }
            self.unit()?;
        }
        if tier != Tier::Unit {
            let begun = SystemTime::now();
            self.cluster("")?;
            drop(images);
            self.calls(begun)?;
            if !keep {
                self.take_down()?;
            }
        }
        Ok(())
    }

    fn packages(&mut self) -> Result<()> {
        self.part("Debian packages", |suite| setup::packages(&suite.progress))
    }

    /// What can fail without a test, and the tests compiled, which lints them.
    fn checks(&mut self) -> Result<()> {
        self.part("formatting", |suite| {
            finish(&mut suite.cargo("fmt --all --check"))
        })?;
        self.part("lints, and compiling the tests", |suite| {
            finish(&mut suite.cargo(&format!("test {ALL} --no-run")))?;
            // Those that a plain `cargo test` leaves out.
            finish(&mut suite.cargo(&format!("test {ALL} --no-run --test lab --test scenarios")))
        })
    }

    fn unit(&mut self) -> Result<()> {
        self.part("alerts", |suite| {
            let mut promtool = Command::new("promtool");
            let test = ["test", "rules", "tests/monitoring/alerts.yaml"];
            finish(promtool.args(test).current_dir(suite.root))
        })?;
        self.part("unit tests and lab", |suite| {
            let lab = format!("--no-fail-fast --test lab -- --nocapture --test-threads={AT_A_TIME}");
            let mut unit = suite.tests(&format!("-- --test-threads={AT_A_TIME}"));
            unit.env("PROPTEST_RNG_SEED", SEED);
            beside(&mut suite.tests(&lab), || finish(&mut nice(&unit)))
        })
    }

    /// The scenarios that these arguments choose, and all that they need.
    fn cluster(&mut self, chosen: &str) -> Result<()> {
        self.part("Kubernetes, etcd and helm", |suite| {
            binaries::ensure(&suite.progress).map(drop)
        })?;
        self.part("images", |suite| images::build(&suite.progress).map(drop))?;
        if "bare::a_release_that_shares_its_port".contains(chosen) {
            self.part("the release before", |suite| {
                skew::before(&suite.progress).map(drop)
            })?;
        }
        self.part("scenarios", |suite| {
            // One cluster for all scenarios, so one at a time.
            let one_by_one = "--test-threads=1 --nocapture";
            let scenarios = format!("test {ALL} --test scenarios -- {one_by_one} {chosen}");
            let mut scenarios = suite.cargo(&scenarios);
            // The errors name what was awaited: forty lines of frames after each would only hide them.
            test_run::finish(scenarios.env("RUST_LIB_BACKTRACE", "0"))
        })
    }

    /// What Trivet's accounts have asked for in all scenarios, beside their rights. Some scenarios alone use only some of the
    /// rights, so it is judged after all of them.
    fn calls(&mut self, begun: SystemTime) -> Result<()> {
        self.part("calls and the chart's roles", |_| {
            let report = calls::compare(&Cluster::load()?, Some(begun.try_into()?))?;
            println!("{report}");
            report.verdict()
        })
    }

    fn take_down(&mut self) -> Result<()> {
        self.part("taking the testbed down", |suite| down(&suite.progress))
    }

    fn part(&mut self, name: &'static str, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.progress.step(name);
        let watch = Stopwatch::start();
        let outcome = work(self).with_context(|| format!("{name} failed"));
        self.taken.push((name, watch.elapsed()));
        outcome
    }

    /// A cargo that lints what it compiles, and fails by any warning.
    ///
    /// `cargo clippy` checks everything once more beside a build, which takes four minutes of two CPUs from a clean checkout;
    /// this costs as good as nothing. Every build of a suite must go this way: cargo compiles the workspace again when its
    /// compiler changes.
    fn cargo(&self, arguments: &str) -> Command {
        let mut cargo = setup::cargo();
        cargo
            .args(arguments.split_whitespace())
            .current_dir(self.root)
            .envs(setup::LINTS);
        cargo
    }

    /// A cargo that runs tests, each program for as long as [`HANGS`] allows.
    fn tests(&self, arguments: &str) -> Command {
        let mut cargo = self.cargo(&format!("test {ALL}"));
        cargo.args(["--config", HANGS]).args(arguments.split_whitespace());
        cargo
    }

    fn report(&self) {
        println!("\nTime taken:");
        for (name, taken) in &self.taken {
            println!("  {name:<28}{:>7.1} s", taken.as_secs_f32());
        }
    }
}

/// The same command at the priority [`BESIDE`].
fn nice(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", BESIDE])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        nice.current_dir(directory);
    }
    nice
}

/// Runs a command beside other work, and prints what it says once both have ended; fails if one of them fails.
fn beside(command: &mut Command, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (worked, output) = thread::scope(|scope| {
        let running = scope.spawn(|| command.output());
        (work(), running.join())
    });
    let Ok(output) = output else {
        bail!("the thread that waits for a command has panicked");
    };
    let output = output.context("failed to run a command beside others")?;
    io::stdout()
        .write_all(&output.stdout)
        .context("failed to print")?;
    io::stderr()
        .write_all(&output.stderr)
        .context("failed to print")?;
    worked?;
    if !output.status.success() {
        bail!(test_run::ended(command, output.status));
    }
    Ok(())
}

fn finish(cargo: &mut Command) -> Result<()> {
    let program = cargo.get_program().to_string_lossy().into_owned();
    let status = cargo
        .status()
        .with_context(|| format!("failed to start {program}"))?;
    if !status.success() {
        bail!(test_run::ended(cargo, status));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn of_two_that_run_side_by_side_either_may_fail() {
        beside(&mut shell("true"), || Ok(())).unwrap();
        let error = beside(&mut shell("exit 3"), || Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` ended with exit status: 3");
        let error = beside(&mut shell("true"), || bail!("the other one")).unwrap_err();
        assert_eq!(error.to_string(), "the other one");
    }

    #[test]
    fn what_is_nice_is_the_same_command_at_another_priority() {
        let mut command = shell("test \"$WORD$HOME\" = word && pwd && nice");
        command
            .env("WORD", "word")
            .env_remove("HOME")
            .current_dir("/proc");
        let output = nice(&command).output().unwrap();
        let here: i32 = BESIDE.parse().unwrap();
        let own: i32 = String::from_utf8(Command::new("nice").output().unwrap().stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let expected = format!("/proc\n{}\n", (here + own).min(19));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}
