//! Builds the fixtures for other kernels and prints where they are, one a line: for
//! `cargo xtask test --vm`, which takes them there.

use residue_tests::fixtures::Fixture;

fn main() {
    for fixture in Fixture::FOR_OTHER_KERNELS {
        match fixture.build() {
            Ok(program) => println!("{}", program.display()),
            // Some take a compiler that not every machine has. A test that needs it says so.
            Err(error) => eprintln!("fixtures: {error:#}"),
        }
    }
}
