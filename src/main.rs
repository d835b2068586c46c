//! The one binary: parses, runs, and turns the result into an exit code.

fn main() -> std::process::ExitCode {
    piecework::main()
}
