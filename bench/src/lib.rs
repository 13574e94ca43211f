//! What the benchmarks share: callers, rounds, and where figures go.

pub mod measure;

/// Prints a line of figures.
#[expect(clippy::print_stdout, reason = "the figures are the output of these programs")]
pub fn say(line: &str) {
    println!("{line}");
}
