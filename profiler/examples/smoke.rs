//! scratch
use residue::attach::*;
use residue::drain::Drain;
use residue_ebpf::abi::{call_shape::CallShape::*, heap::*};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let pid: u32 = a[1].parse().unwrap();
    ensure_tracefs(); let t0 = std::time::Instant::now();
    let (mut k, ch) = Kernel::load(Limits{max_live: 1<<20, max_stacks: 65536}, if a.len()>3 {ProgramSet::Empty} else {ProgramSet::Counting}).unwrap_or_else(|e| panic!("{e:?}"));
    eprintln!("load {:?}", t0.elapsed());
    let mut d = Drain::new(ch);
    k.attach_tracepoints().unwrap_or_else(|e| { let mut s: Option<&dyn std::error::Error> = Some(&e); while let Some(x) = s { eprintln!("{x}"); s = x.source(); } panic!() });
    eprintln!("tracepoints {:?}", t0.elapsed());
    k.set_process(0, ProcessState{tgid: pid, flags: 0, trampoline: 0}).unwrap();
    let lib = std::path::Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    // glibc 2.36 offsets
    for (off, shape) in [(0x98ef3u64, Free), (0x99130, Realloc), (0x98930, Malloc), (0x996e0, Calloc), (0x9a287, PosixMemalign), (0x99617, AlignedAlloc)] {
        k.attach_function(0, pid.try_into().unwrap(), &ProbePoint{object: lib, file_offset: off, shape}, FunctionInfo{text_start:0,text_end:u64::MAX>>1}).unwrap_or_else(|e| { let mut s: Option<&dyn std::error::Error> = Some(&e); while let Some(x) = s { eprintln!("{x}"); s = x.source(); } panic!() });
        eprintln!("{shape:?} {:?}", t0.elapsed());
    }
    k.set_process(0, ProcessState{tgid: pid, flags: PROCESS_OPEN, trampoline: 0}).unwrap();
    for _ in 0..a[2].parse::<u32>().unwrap() {
        std::thread::sleep(std::time::Duration::from_secs(1));
        println!("stacks {:?}", d.stacks().iter().map(|s| (s.id, s.frames.len())).collect::<Vec<_>>());
        println!("events {:?}", d.events().len());
        println!("totals {:?}", d.changed_totals().unwrap());
        println!("{:?}", d.counters().unwrap().iter().filter(|c| c.1>0).collect::<Vec<_>>());
    }
    ensure_tracefs(); let t0 = std::time::Instant::now();
    k.detach_all();
    eprintln!("detach {:?}", t0.elapsed());
}
