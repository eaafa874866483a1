//! The tables of allowed edges: which room of a crate may look into which.

/// The rooms of one crate.
pub struct House {
    /// The directory of the crate's sources.
    pub sources: &'static str,
    /// The name by which the files name the library that is made of the same sources; empty if there
    /// is none.
    pub library: &'static str,
    /// The rooms from top to bottom, each with the rooms that it may look into.
    pub rooms: &'static [Room],
}

/// A room, and the rooms that it may look into.
pub type Room = (&'static str, &'static [&'static str]);

/// Both crates.
pub const HOUSES: &[House] = &[PROFILER, PROGRAMS];

/// The program and its library.
pub const PROFILER: House = House {
    sources: "profiler/src/",
    library: "",
    rooms: &[
        (
            "cli",
            &[
                "attach",
                "capture",
                "messages",
                "printable",
                "private_file",
                "probes",
                "process",
                "profile",
                "python",
                "remark",
                "report",
                "requests",
                "session",
                "signal_mask",
                "sink",
                "symbolize",
                "unwind",
            ],
        ),
        (
            "session",
            &[
                "attach",
                "capture",
                "drain",
                "error_text",
                "heap",
                "ids",
                "private_file",
                "probes",
                "process",
                "python",
                "remark",
                "requests",
                "signal_mask",
                "sink",
                "symbolize",
                "unwind",
            ],
        ),
        (
            "sink",
            &[
                "capture",
                "error_text",
                "ids",
                "messages",
                "printable",
                "private_file",
                "remark",
                "report",
                "requests",
                "wording",
            ],
        ),
        ("remark", &["private_file", "wording"]),
        ("messages", &["printable"]),
        ("drain", &["attach", "ids"]),
        ("attach", &["ids", "process", "unwind"]),
        (
            "report",
            &["estimate", "printable", "profile", "requests", "wording"],
        ),
        (
            "profile",
            &["capture", "estimate", "ids", "printable", "requests"],
        ),
        (
            "capture",
            &[
                "heap",
                "ids",
                "printable",
                "private_file",
                "requests",
                "symbolize",
            ],
        ),
        ("heap", &["ids"]),
        ("requests", &["estimate", "ids", "printable"]),
        ("estimate", &[]),
        ("wording", &["printable"]),
        ("printable", &[]),
        ("python", &["probes", "process", "unwind"]),
        ("unwind", &["process"]),
        ("symbolize", &["process"]),
        ("probes", &["process"]),
        ("process", &[]),
        ("signal_mask", &[]),
        ("private_file", &[]),
        ("error_text", &[]),
        ("ids", &[]),
    ],
};

/// The kernel side. `abi` is the library that both sides share.
pub const PROGRAMS: House = House {
    sources: "profiler-ebpf/src/",
    library: "residue_ebpf",
    rooms: &[
        (
            "heap",
            &[
                "abi", "atomic", "counters", "events", "kernel", "live", "maps", "process",
                "requests", "stack", "state", "threads", "verifier",
            ],
        ),
        (
            "process",
            &["abi", "events", "kernel", "maps", "requests", "threads"],
        ),
        (
            "requests",
            &[
                "abi", "atomic", "counters", "kernel", "maps", "python", "state", "threads",
                "verifier",
            ],
        ),
        (
            "stack",
            &[
                "abi", "atomic", "counters", "kernel", "maps", "python", "state", "verifier",
            ],
        ),
        (
            "python",
            &[
                "abi", "atomic", "counters", "kernel", "maps", "state", "verifier",
            ],
        ),
        ("threads", &["abi", "counters", "kernel", "maps", "state"]),
        ("events", &["abi", "counters", "maps"]),
        ("live", &["abi", "atomic", "maps"]),
        ("cost", &["abi", "atomic", "kernel", "maps"]),
        ("kernel", &["abi", "maps", "state"]),
        ("counters", &["abi", "atomic", "maps"]),
        ("maps", &["abi", "state"]),
        ("state", &["abi"]),
        ("atomic", &[]),
        ("verifier", &[]),
        ("abi", &[]),
    ],
};
