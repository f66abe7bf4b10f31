//! `kubectl trivet` as scenarios run it: all of it is in its library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_trivet::run()
}
