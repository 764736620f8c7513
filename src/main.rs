//! The command line: parse, run, print what failed and what to do about it, exit with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match fog::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            fog::cli::complain(&failure);
            failure.exit_code()
        }
    }
}
