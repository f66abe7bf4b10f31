//! The program: all of it is in the library, so that a test can build one that has a fault besides.

use std::process::ExitCode;

fn main() -> ExitCode {
    trivet_proxy::program::main()
}
