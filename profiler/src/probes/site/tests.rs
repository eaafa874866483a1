//! The byte sequences come from the libraries that their names tell.

use proptest::prelude::*;
use residue_ebpf::abi::call_shape::CallShape::*;

use super::SiteCost::*;
use super::*;

fn complete(bytes: &[u8]) -> FunctionCode {
    FunctionCode {
        bytes: bytes.to_vec(),
        complete: true,
    }
}

/// The chosen offset, with the cost and the text of the instruction there.
fn site(bytes: &[u8], shape: CallShape) -> (u64, SiteCost, String) {
    let choice = choose(&complete(bytes), shape, SitePolicy::Cheapest).expect("it decodes");
    (
        choice.offset,
        choice.cost,
        text(&choice.instruction, Svma(0x1000)),
    )
}

fn at(offset: u64, cost: SiteCost, instruction: &str) -> (u64, SiteCost, String) {
    (offset, cost, instruction.to_owned())
}

const GLIBC_FREE: &[u8] = &[
    0x48, 0x85, 0xff, // test rdi, rdi
    0x0f, 0x84, 0xbf, 0x00, 0x00, 0x00, // je +0xc8
    0x55, // push rbp
    0x48, 0x8d, 0x77, 0xf0, // lea rsi, [rdi-0x10]
    0x53, // push rbx
];
const GLIBC_MEMALIGN: &[u8] = &[
    0x80, 0x3d, 0x71, 0x0e, 0x14, 0x00, 0x00, // cmp byte [rip+..], 0
    0x74, 0x07, // je +0x10
    0xe9, 0x32, 0xf6, 0xff, 0xff, // jmp
    0x66, 0x90, // xchg ax, ax
    0x48, 0x83, 0xec, 0x18, // sub rsp, 0x18
];
const GLIBC_POSIX_MEMALIGN: &[u8] = &[
    0x80, 0x3d, 0x01, 0x02, 0x14, 0x00, 0x00, // cmp byte [rip+..], 0
    0x41, 0x54, // push r12
    0x49, 0x89, 0xd4, // mov r12, rdx
    0x55, // push rbp
];
const GLIBC_MMAP: &[u8] = &[
    0x41, 0x89, 0xca, // mov r10d, ecx
    0x41, 0xf7, 0xc1, 0xff, 0x0f, 0x00, 0x00, // test r9d, 0xfff
    0x75, 0x14, // jne +0x20
    0xb8, 0x09, 0x00, 0x00, 0x00, // mov eax, 9
    0x0f, 0x05, // syscall
];
const GLIBC_MREMAP: &[u8] = &[
    0x48, 0x83, 0xec, 0x58, // sub rsp, 0x58
    0x4c, 0x89, 0x44, 0x24, 0x40, // mov [rsp+0x40], r8
    0x83, 0xf9, 0x07, // cmp ecx, 7
    0x77, 0x5a, // ja
];

#[test]
fn functions_that_open_with_a_push_are_probed_there() {
    let malloc = [0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb];
    assert_eq!(site(&malloc, Malloc), at(0, Emulated, "push r12"));
    let calloc = [0x41, 0x55, 0x48, 0x89, 0xf8, 0x41, 0x54];
    assert_eq!(site(&calloc, Calloc), at(0, Emulated, "push r13"));
    let realloc = [0x41, 0x57, 0x41, 0x56, 0x41, 0x55];
    assert_eq!(site(&realloc, Realloc), at(0, Emulated, "push r15"));
}

#[test]
fn glibc_free_is_probed_behind_its_null_check() {
    assert_eq!(site(GLIBC_FREE, Free), at(9, Emulated, "push rbp"));
}

#[test]
fn a_free_without_a_cheap_instruction_behind_its_null_check_is_probed_at_the_check() {
    let free = [0x48, 0x85, 0xff, 0x74, 0x04, 0x48, 0x8b, 0x3f, 0x55, 0xc3];
    let (offset, cost, _) = site(&free, Free);
    assert_eq!(
        (offset, cost),
        (3, Emulated),
        "mov rdi, [rdi] destroys the argument"
    );
}

#[test]
fn a_null_check_ends_the_search_for_any_other_shape() {
    let (offset, cost, _) = site(GLIBC_FREE, Malloc);
    assert_eq!((offset, cost), (3, Emulated));
}

#[test]
fn entry_and_return_share_a_site_behind_a_comparison() {
    assert_eq!(
        site(GLIBC_MEMALIGN, AlignedAlloc),
        at(7, Emulated, "je 0x1010")
    );
    let expected = at(7, Emulated, "push r12");
    assert_eq!(site(GLIBC_POSIX_MEMALIGN, PosixMemalign), expected);
}

#[test]
fn mapping_functions_keep_the_stack_of_their_caller() {
    let (offset, cost, _) = site(GLIBC_MMAP, NoteCaller);
    assert_eq!((offset, cost), (10, Emulated));
    let expected = at(0, SingleStepped, "sub rsp, 0x58");
    assert_eq!(
        site(GLIBC_MREMAP, NoteCaller),
        expected,
        "the stack pointer has moved"
    );
}

#[test]
fn the_landing_pad_of_a_cet_build_is_stepped_over() {
    let malloc = [0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0x55];
    assert_eq!(site(&malloc, Malloc), at(4, Emulated, "push r12"));
    let free = [&[0xf3, 0x0f, 0x1e, 0xfa], GLIBC_FREE].concat();
    assert_eq!(site(&free, Free), at(13, Emulated, "push rbp"));
}

#[test]
fn musl_malloc_is_probed_at_its_jump() {
    let malloc = [0xe9, 0x6b, 0x19, 0x00, 0x00];
    assert_eq!(site(&malloc, Malloc).0, 0);
    assert_eq!(site(&malloc, Malloc).1, Emulated);
    assert_eq!(forwards_to(&complete(&malloc)), Some(0x1970));
    assert_eq!(forwards_to(&complete(GLIBC_FREE)), None);
}

#[test]
fn an_argument_overwritten_before_the_push_keeps_the_probe_at_the_start() {
    // mov rdi, rsi; push rbp
    let code = [0x48, 0x89, 0xf7, 0x55, 0xc3];
    assert_eq!(site(&code, Malloc), at(0, SingleStepped, "mov rdi, rsi"));
    // xor esi, esi; push rbp: the shape has one argument, in another register
    let code = [0x31, 0xf6, 0x55, 0xc3];
    assert_eq!(site(&code, Malloc), at(2, Emulated, "push rbp"));
    assert_eq!(site(&code, Calloc).0, 0, "two are read");
}

#[test]
fn memory_written_before_the_push_keeps_the_probe_at_the_start() {
    // mov [rsi], rax; push rbp: other threads may already get the block
    let code = [0x48, 0x89, 0x06, 0x55, 0xc3];
    assert_eq!(site(&code, Free).0, 0);
}

#[test]
fn a_site_that_a_loop_comes_back_to_is_rejected() {
    // test rdi, rdi; push rbx (3); dec rax; jne 3; ret
    let looping = [0x48, 0x85, 0xff, 0x53, 0x48, 0xff, 0xc8, 0x75, 0xfa, 0xc3];
    assert_eq!(
        site(&looping, Malloc),
        at(0, SingleStepped, "test rdi, rdi")
    );
    // the same, but the loop begins after the push
    let behind = [0x48, 0x85, 0xff, 0x53, 0x48, 0xff, 0xc8, 0x75, 0xfb, 0xc3];
    assert_eq!(site(&behind, Malloc), at(3, Emulated, "push rbx"));
}

#[test]
fn code_whose_end_is_unknown_or_undecodable_keeps_the_probe_at_the_start() {
    let cut = FunctionCode {
        bytes: GLIBC_POSIX_MEMALIGN.to_vec(),
        complete: false,
    };
    let choice = choose(&cut, PosixMemalign, SitePolicy::Cheapest).expect("it decodes");
    assert_eq!(
        (choice.offset, choice.reason),
        (0, "the function's end is not known")
    );
    // 06 is no instruction in 64-bit mode
    assert_eq!(site(&[0x48, 0x85, 0xff, 0x55, 0x06], Malloc).0, 0);
}

#[test]
fn no_code_has_no_site() {
    for bytes in [&[][..], &[0x06], &[0x48], &[0x0f, 0x84, 0xbf]] {
        for policy in [SitePolicy::Cheapest, SitePolicy::FunctionStart] {
            assert!(
                choose(&complete(bytes), Free, policy).is_none(),
                "{bytes:02x?}"
            );
        }
    }
}

#[test]
fn instructions_are_shown_with_the_files_addresses() {
    // lea rax, [rip+0x10]; ret
    let expected = at(0, SingleStepped, "lea rax, [0x1017]");
    assert_eq!(
        site(&[0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0xc3], Malloc),
        expected
    );
}

#[test]
fn the_baseline_probes_the_start() {
    let choice = choose(&complete(GLIBC_FREE), Free, SitePolicy::FunctionStart);
    let choice = choice.expect("it decodes");
    assert_eq!((choice.offset, choice.cost), (0, SingleStepped));
}

#[test]
fn a_nop_for_patching_is_taken_only_when_there_is_no_push() {
    let nop = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    let with_push = [&nop[..], &[0x55, 0xc3]].concat();
    assert_eq!(site(&with_push, Malloc), at(5, Emulated, "push rbp"));
    let without = [&nop[..], &[0xc3]].concat();
    assert_eq!(site(&without, Malloc).1, OptimizedNop);
}

proptest! {
    #[test]
    fn any_bytes_give_a_site_inside_them_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        shape in prop::sample::select(CallShape::ALL.to_vec()),
        complete in any::<bool>(),
    ) {
        let code = FunctionCode { bytes, complete };
        forwards_to(&code);
        if let Some(choice) = choose(&code, shape, SitePolicy::Cheapest) {
            prop_assert!(choice.offset < code.bytes.len() as u64);
        }
    }
}
