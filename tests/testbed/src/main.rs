//! The testbed's verbs as a program of their own, for those who work on the testbed itself.

use clap::Parser as _;
use trivet_testbed::cli::Testbed;

fn main() -> anyhow::Result<()> {
    Testbed::parse().run()
}
