//! Builds every fixture and prints where it is, one a line: for `cargo xtask test --vm`, which takes
//! them to another kernel.

use residue_tests::fixtures::Fixture;

fn main() {
    for fixture in Fixture::ALL {
        match fixture.build() {
            Ok(program) => println!("{}", program.display()),
            // Some take a compiler that not every machine has. A test that needs it says so.
            Err(error) => eprintln!("fixtures: {error:#}"),
        }
    }
}
