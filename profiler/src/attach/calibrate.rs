//! What probes cost on this host: measured with the empty programs, on functions of residue's own.

use std::{num::NonZeroU32, path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{AttachError, Kernel, ProbePoint};
use crate::target::{Avma, Process};
use residue_ebpf::abi::call_shape::CallShape;

/// How often a function is called for one measurement: a few milliseconds in all.
const CALLS: u32 = 2000;
/// The middle one of so many measurements counts: what disturbs us disturbs those who are recorded as well.
const MEASUREMENTS: u32 = 5;
/// The slot that the calibration's probes belong to. It is never opened.
const SLOT: u16 = 1023;

/// What a hit of a probe costs that sits on an emulated instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// At a function's entry.
    pub entry: Duration,
    /// At its entry and its return.
    pub pair: Duration,
}

/// Begins, as most functions do, with an instruction that the kernel emulates.
#[unsafe(naked)]
extern "C" fn with_entry() {
    core::arch::naked_asm!("push rbp", "pop rbp", "ret");
}

#[unsafe(naked)]
extern "C" fn with_pair() {
    core::arch::naked_asm!("push rbx", "pop rbx", "ret");
}

impl Kernel {
    /// Measures, once. The probes stay in until the end: taking them out would take longer, and nobody calls
    /// what they are on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the probes.
    pub fn probe_cost(&mut self) -> Result<ProbeCost, AttachError> {
        if let Some(known) = self.probe_cost {
            return Ok(known);
        }
        let bare = time(with_entry);
        let probes = [
            (with_entry as extern "C" fn(), "empty_entry"),
            (with_pair, "empty_return"),
            (with_pair, "empty_entry"),
        ];
        let mut probes = probes.into_iter();
        let attached =
            probes.try_for_each(|(function, program)| self.attach_to_self(function, program));
        if attached.is_err() {
            // Else the next try would measure those that are in.
            drop(self.probes_of(SLOT));
        }
        attached?;
        let cost = ProbeCost {
            entry: time(with_entry).saturating_sub(bare),
            pair: time(with_pair).saturating_sub(bare),
        };
        self.probe_cost = Some(cost);
        Ok(cost)
    }

    fn attach_to_self(
        &mut self,
        function: extern "C" fn(),
        program: &'static str,
    ) -> Result<(), AttachError> {
        let own = std::process::id();
        let place = Process::open(own.cast_signed()).ok().and_then(|process| {
            let (_, offset) = process.mappings().locate(Avma(function as usize as u64))?;
            Some((NonZeroU32::new(own)?, offset))
        });
        let Some((pid, offset)) = place else {
            return Err(AttachError::OwnCode);
        };
        let point = ProbePoint {
            object: Path::new("/proc/self/exe"),
            name: Path::new("/proc/self/exe"),
            file_offset: offset.0,
            shape: CallShape::NoteCaller,
        };
        self.attach_uprobe(program, SLOT, pid, &point, 0)
    }
}

/// The processor time of this thread: others may want the processor, too.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How long a call takes.
fn time(function: extern "C" fn()) -> Duration {
    let measure = || {
        let began = own_time();
        (0..CALLS).for_each(|_| std::hint::black_box(function)());
        own_time().saturating_sub(began) / CALLS
    };
    let mut measured: Vec<Duration> = (0..MEASUREMENTS).map(|_| measure()).collect();
    measured.sort_unstable();
    measured[measured.len() / 2]
}
