//! The situations that servers are known to get into.

use super::*;

const STEADY: Situation = Situation {
    name: "a steady leak",
    leak: 20_000.0,
    other: 0.0,
    one_in: 1.0,
    load: Load::Mixed,
    memory: Memory::Smooth(100_000.0),
    jump: (0.0, [0.0, 1.0]),
    jump_over: 1,
    background: (0.0, 1.0),
    jitter: 0.0,
    intervals: 100,
    requests: 2000.0,
    from: EstimatedFrom::Blocks,
};
const RESIDENT: Situation = Situation {
    from: EstimatedFrom::ResidentSet,
    requests: 600.0,
    ..STEADY
};
/// 5,000 requests in five seconds, as the live test has them.
const GO: Situation = Situation {
    leak: 65_536.0,
    requests: 5000.0,
    intervals: 50,
    ..RESIDENT
};
/// What a pool does under a load of 200 requests a second, beside threads that keep a block 100 times a second.
const POOL: Situation = Situation {
    leak: 10_001.0,
    load: Load::Paced(0.03),
    memory: Memory::Passing(20_000.0),
    background: (100_010.0, 10_001.0),
    intervals: 62,
    requests: 1200.0,
    ..STEADY
};
/// On a busy machine, looks come 50 to 190 ms apart.
const BUSY: f64 = 0.58;
const EARLY: [f64; 2] = [0.0, 0.3];
const LATE: [f64; 2] = [0.7, 1.0];

pub(super) fn all() -> Vec<Situation> {
    let early_cache = Situation {
        name: "a cache of 400 KB is loaded early",
        jump: (4e5, EARLY),
        ..STEADY
    };
    let uwsgi = Situation {
        name: "200 leaky requests, then 200 clean ones that load a cache",
        load: Load::Sequence,
        memory: Memory::Smooth(2000.0),
        requests: 400.0,
        jump: (4e5, [0.5, 0.55]),
        ..STEADY
    };
    let steps = |name, leak, step| Situation {
        name,
        leak,
        memory: Memory::Steps(step),
        ..RESIDENT
    };
    vec![
        STEADY,
        Situation {
            name: "a steady leak without noise",
            memory: Memory::Smooth(0.0),
            ..STEADY
        },
        Situation {
            name: "shares of a steady load",
            load: Load::Shares,
            ..STEADY
        },
        Situation {
            name: "routes in proportion",
            load: Load::Proportional,
            ..STEADY
        },
        Situation {
            name: "the leaky and the clean route by turns",
            load: Load::Alternating,
            ..STEADY
        },
        Situation {
            name: "all leaky, then all clean",
            load: Load::Sequence,
            ..STEADY
        },
        Situation {
            name: "one request in 20 leaves something",
            one_in: 20.0,
            ..STEADY
        },
        early_cache,
        Situation {
            name: "a cache of 400 KB is loaded late",
            jump: (4e5, LATE),
            ..early_cache
        },
        Situation {
            name: "a cache is loaded, by turns",
            load: Load::Alternating,
            ..early_cache
        },
        Situation {
            name: "a cache is loaded, small leak",
            leak: 500.0,
            memory: Memory::Smooth(1000.0),
            requests: 400.0,
            ..early_cache
        },
        Situation {
            name: "a cache is loaded, few pages",
            leak: 500.0,
            memory: Memory::Smooth(4096.0),
            requests: 400.0,
            from: EstimatedFrom::ResidentSet,
            ..early_cache
        },
        Situation {
            name: "a cache of 500 MB is loaded",
            jump: (5e8, [0.0, 1.0]),
            ..STEADY
        },
        uwsgi,
        Situation {
            name: "the same by pages",
            memory: Memory::Smooth(4096.0),
            from: EstimatedFrom::ResidentSet,
            ..uwsgi
        },
        Situation {
            name: "the same in 24 intervals, loaded bit by bit",
            intervals: 24,
            jump_over: 3,
            ..uwsgi
        },
        Situation {
            name: "the same by turns",
            load: Load::Mixed,
            jump_over: 3,
            jump: (4e5, EARLY),
            ..uwsgi
        },
        steps("steps of 64 KiB, 200 bytes a request", 200.0, 65_536.0),
        steps("steps of 64 KiB, 5 kB a request", 5000.0, 65_536.0),
        steps("steps of 256 KiB, 2 kB a request", 2000.0, 262_144.0),
        steps("steps of 1 MiB, 1 kB a request", 1000.0, 1_048_576.0),
        steps("steps of 1 MiB, 20 kB a request", 20_000.0, 1_048_576.0),
        steps("steps of 1 MiB, no leak", 0.0, 1_048_576.0),
        Situation {
            name: "blocks in steps of 64 KiB",
            leak: 200.0,
            memory: Memory::Steps(65_536.0),
            requests: 600.0,
            ..STEADY
        },
        Situation {
            name: "steps of 1 MiB, by turns",
            load: Load::Alternating,
            ..steps("", 5000.0, 1_048_576.0)
        },
        Situation {
            name: "autocorrelated growth",
            memory: Memory::Autocorrelated(50_000.0, 0.8),
            ..STEADY
        },
        Situation {
            name: "autocorrelated growth, by turns",
            load: Load::Alternating,
            memory: Memory::Autocorrelated(50_000.0, 0.8),
            ..STEADY
        },
        Situation {
            name: "what comes and goes",
            memory: Memory::Passing(200_000.0),
            ..STEADY
        },
        Situation {
            name: "a saw tooth of 20 teeth",
            memory: Memory::SawTooth(50_000.0, 5e6),
            ..STEADY
        },
        Situation {
            name: "a saw tooth of 4 teeth",
            memory: Memory::SawTooth(50_000.0, 25e6),
            ..STEADY
        },
        Situation {
            name: "a saw tooth of 2 teeth",
            memory: Memory::SawTooth(50_000.0, 48e6),
            ..STEADY
        },
        Situation {
            name: "a saw tooth, by turns",
            load: Load::Alternating,
            memory: Memory::SawTooth(20_000.0, 5e6),
            ..STEADY
        },
        Situation {
            name: "a heap that doubles between collections",
            memory: Memory::Doubling(50_000.0, 4e6, true),
            ..GO
        },
        Situation {
            name: "the same of 20 MB",
            memory: Memory::Doubling(50_000.0, 20e6, true),
            ..GO
        },
        Situation {
            name: "the same, little garbage",
            memory: Memory::Doubling(5_000.0, 4e6, true),
            ..GO
        },
        Situation {
            name: "the same, by turns",
            load: Load::Alternating,
            memory: Memory::Doubling(50_000.0, 4e6, true),
            ..GO
        },
        Situation {
            name: "a heap that doubles and is kept",
            memory: Memory::Doubling(50_000.0, 4e6, false),
            ..GO
        },
        Situation {
            name: "the same, little garbage",
            memory: Memory::Doubling(5_000.0, 4e6, false),
            ..GO
        },
        Situation {
            name: "the same, much garbage, small leak",
            leak: 2_000.0,
            memory: Memory::Doubling(100_000.0, 4e6, false),
            ..GO
        },
        Situation {
            name: "the same, by turns",
            load: Load::Alternating,
            memory: Memory::Doubling(5_000.0, 4e6, false),
            ..GO
        },
        Situation {
            name: "a heap of 10 MB warms up",
            leak: 65_336.0,
            memory: Memory::WarmUp(1e7, 0.05),
            ..RESIDENT
        },
        Situation {
            name: "a heap of 10 MB warms up slowly",
            leak: 65_336.0,
            memory: Memory::WarmUp(1e7, 0.15),
            ..RESIDENT
        },
        Situation {
            name: "8 requests",
            requests: 8.0,
            memory: Memory::Steps(65_536.0),
            leak: 1000.0,
            ..RESIDENT
        },
        Situation {
            name: "60 requests",
            requests: 60.0,
            memory: Memory::Steps(65_536.0),
            leak: 1000.0,
            ..RESIDENT
        },
        Situation {
            name: "60 requests in 20 intervals",
            requests: 60.0,
            intervals: 20,
            memory: Memory::Smooth(10_000.0),
            ..STEADY
        },
        Situation {
            name: "beside a steady background",
            background: (200_000.0, 1000.0),
            memory: Memory::Smooth(10_000.0),
            ..STEADY
        },
        Situation {
            name: "beside a steady background, by turns",
            load: Load::Alternating,
            background: (200_000.0, 1000.0),
            memory: Memory::Smooth(10_000.0),
            ..STEADY
        },
        Situation {
            name: "a pool beside a steady background",
            ..POOL
        },
        Situation {
            name: "the same under any load",
            load: Load::Mixed,
            ..POOL
        },
        Situation {
            name: "the same without what comes and goes",
            memory: Memory::Smooth(1000.0),
            ..POOL
        },
        Situation {
            name: "the same of the resident set",
            memory: Memory::Smooth(20_000.0),
            from: EstimatedFrom::ResidentSet,
            ..POOL
        },
        Situation {
            name: "a pool for both routes",
            other: 3000.0,
            ..POOL
        },
        Situation {
            name: "a pool for both routes alike",
            other: 10_001.0,
            ..POOL
        },
        Situation {
            name: "a pool for both routes, little background",
            other: 3000.0,
            background: (10_000.0, 1000.0),
            ..POOL
        },
        Situation {
            name: "a pool beside a thread that gives memory back",
            background: (-100_010.0, 10_001.0),
            ..POOL
        },
        Situation {
            name: "the same, and both routes leave something",
            background: (-100_010.0, 10_001.0),
            other: 6000.0,
            ..POOL
        },
        Situation {
            name: "a pool and no background",
            background: (0.0, 1.0),
            ..POOL
        },
        Situation {
            name: "a paced load of an event loop",
            load: Load::Paced(0.04),
            memory: Memory::Passing(20_000.0),
            intervals: 54,
            requests: 5000.0,
            ..STEADY
        },
        Situation {
            name: "a paced load that leaves nothing",
            leak: 0.0,
            load: Load::Paced(0.04),
            memory: Memory::Passing(20_000.0),
            intervals: 54,
            requests: 5000.0,
            ..STEADY
        },
        Situation {
            name: "a paced load with garbage",
            load: Load::Paced(0.04),
            memory: Memory::Doubling(5_000.0, 4e6, false),
            ..GO
        },
    ]
}

/// Looks at memory that come late now and then: what that may harm, and some of all else.
pub(super) fn on_a_busy_machine() -> Vec<Situation> {
    let may_be_harmed =
        |it: &Situation| it.background.0 != 0.0 || matches!(it.load, Load::Paced(_));
    let situations = all().into_iter().enumerate();
    let some = situations.filter(|(index, it)| index % 6 == 0 || may_be_harmed(it));
    let late = some.map(|(_, it)| Situation { jitter: BUSY, ..it });
    late.collect()
}
