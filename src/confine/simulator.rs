//! An independent evaluator of seccomp programs, for tests: what the kernel does with the bytes, written from its documentation and
//! not from libseccomp. Called by the tests of `seccomp` and `docker`. Must never agree with the generator by sharing code with it.
//! kernel: net/core/filter.c, kernel/seccomp.c seccomp_check_filter()

use crate::sys::confine::SockFilter;

pub const X86_64: u32 = 0xc000_003e;
pub const I386: u32 = 0x4000_0003;
pub const X32: u32 = 0x4000_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Errno(u16),
    KillProcess,
    KillThread,
    Trap,
    Log,
}

pub const EPERM: Verdict = Verdict::Errno(libc::EPERM as u16);
pub const ENOSYS: Verdict = Verdict::Errno(libc::ENOSYS as u16);

/// The verdict on one call. Panics on a program that the kernel would not take.
pub fn judge(program: &[SockFilter], arch: u32, number: u32, args: [u64; 6]) -> Verdict {
    let mut data = Vec::with_capacity(64);
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    args.iter().for_each(|a| data.extend(a.to_ne_bytes()));
    let (mut a, mut pc) = (0u32, 0usize);
    loop {
        let SockFilter { code, jt, jf, k } = program[pc];
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                assert!(k % 4 == 0);
                a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
            }
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => pc += jump(a == k),
            0x25 => pc += jump(a > k),
            0x35 => pc += jump(a >= k),
            0x45 => pc += jump(a & k != 0),
            0x06 => {
                return match k & 0xffff_0000 {
                    0x7fff_0000 => Verdict::Allow,
                    0x7ffc_0000 => Verdict::Log,
                    0x0005_0000 => Verdict::Errno(k as u16),
                    0x0003_0000 => Verdict::Trap,
                    0x8000_0000 => Verdict::KillProcess,
                    0x0000_0000 => Verdict::KillThread,
                    other => panic!("unknown verdict {other:#x}"),
                };
            }
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

#[test]
fn the_simulator_tells_right_from_wrong() {
    let i = |code, jt, jf, k| SockFilter { code, jt, jf, k };
    let program = [
        i(0x20, 0, 0, 0),
        i(0x15, 0, 1, 7),
        i(0x06, 0, 0, 0x7fff_0000),
        i(0x20, 0, 0, 20),
        i(0x25, 0, 1, 1),
        i(0x06, 0, 0, 0x8000_0000),
        i(0x06, 0, 0, 0x5_0001),
    ];
    assert_eq!(judge(&program, X86_64, 7, [0; 6]), Verdict::Allow);
    assert_eq!(judge(&program, X86_64, 8, [0; 6]), EPERM);
    assert_eq!(judge(&program, X86_64, 8, [2 << 32, 0, 0, 0, 0, 0]), Verdict::KillProcess);
}
