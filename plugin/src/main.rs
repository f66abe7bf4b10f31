//! The program: all of it is in the library, so that tests can use its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_trivet::run()
}
