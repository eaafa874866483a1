//! The words of remarks that name several processes.

use super::*;

fn named(count: i32) -> Several<Named> {
    let all = (1..=count).map(|pid| Named {
        pid,
        comm: "worker".to_owned(),
    });
    all.collect()
}

#[test]
fn a_remark_names_ten_processes_and_says_how_many_more_there_are() {
    let children = |count, when, asked| {
        let children = named(count);
        Remark::Children {
            when,
            asked,
            children,
        }
        .to_string()
    };
    assert_eq!(
        children(1, When::AtTheStart, false),
        "child processes that are there are not recorded: 1 (worker); record them by -p PID, or give --children once \
         they exist"
    );
    let many = children(12, When::AtTheEnd, true);
    assert!(many.contains("10 (worker) and 2 more; record"), "{many}");
    assert!(!many.contains("11 (worker)"), "{many}");
    let idle = Remark::Cost(Cost::Idle(named(12))).to_string();
    assert!(idle.contains("10 (worker), and 2 more. If"), "{idle}");
}

#[test]
fn what_is_said_again_at_the_end_is_passing() {
    let process = Named {
        pid: 1,
        comm: "worker".to_owned(),
    };
    let spent = Spent::default();
    let slowed = Cost::Slowed { process, spent };
    assert!(Remark::Cost(slowed).is_passing());
    assert!(!Remark::Cost(Cost::Idle(named(1))).is_passing());
}
