//! `make demo`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match trivet_tests::demo::demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            trivet_tests::say::say(format!("the demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
