//! The harness of the tests on real processes.
//!
//! A [`Target`](target::Target) is a fixture program from `targets/`, which knows what it holds by
//! the function that asked for it. A [`Recorder`](recorder::Recorder) is a running `residue
//! record`. Between the target's `ready` and its `barrier` all of the test happens, so what the
//! [`Report`](report::Report) says is outstanding must be what the target says, exactly:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use residue_tests::{exact::assert_exact, fixtures::Fixture, recorder::Recorder, target::Target};
//!
//! let mut target = Target::start(&Fixture::HeapWalk.build()?, &[])?;
//! let recorder = Recorder::start(&[target.pid()], &[])?;
//! let truth = target.go()?;
//! assert_exact(&truth, &recorder.stop()?.report()?);
//! # Ok(())
//! # }
//! ```
//!
//! Every wait has a limit. Most tests run side by side ([`machine::beside_others`]). A test that
//! measures time runs alone ([`machine::alone`]), whatever `--test-threads` says. Knobs are
//! environment variables; see [`machine::Knobs`].

pub mod chains;
pub mod code_bytes;
pub mod disk;
pub mod exact;
pub mod fixtures;
pub mod hanging;
pub mod http;
pub mod lines;
pub mod machine;
pub mod oracle;
pub mod python;
pub mod recorder;
pub mod report;
pub mod servers;
pub mod target;
pub mod truth;
pub mod windows;
