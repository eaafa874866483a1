//! Measures what probes cost on this host, with empty programs on functions of residue's own.

use std::{num::NonZeroU32, path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{AttachError, Kernel, ProbePoint};
use crate::{
    ids::Slot,
    process::{Avma, Process},
};
use residue_ebpf::abi::call_shape::CallShape;

/// How many calls of a function one measurement takes: a few milliseconds in all.
const CALLS: u32 = 2000;
/// How many measurements to take. The median counts, because what disturbs residue now and then also disturbs
/// the targets.
const MEASUREMENTS: u32 = 5;
/// The slot of the calibration's probes, which no process ever has: the kernel side has fewer.
const SLOT: Slot = Slot(u16::MAX);

/// What one hit costs of a probe on an instruction that the kernel emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// A hit of a probe at a function's entry.
    pub entry: Duration,
    /// A hit of the two probes at a function's entry and return together.
    pub pair: Duration,
}

/// A function that begins with an instruction that the kernel emulates, as most functions do.
#[unsafe(naked)]
extern "C" fn with_entry() {
    core::arch::naked_asm!("push rbp", "pop rbp", "ret");
}

#[unsafe(naked)]
extern "C" fn with_pair() {
    core::arch::naked_asm!("push rbx", "pop rbx", "ret");
}

impl Kernel {
    /// Measures the cost at the first call, and remembers it. The probes stay in until the end, because taking
    /// them out takes longer than the measurement, and nobody else calls these functions.
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

/// The processor time of this thread. It leaves out the time during which other threads had the processor.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How long one call takes.
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
