//! The ids that a process believes to have: the rules of credentials(7), for a process whose true ids never change.
//!
//! *What*: `Ids` is one set of them, with what each system call makes of it; `Sets` numbers those that were seen. A process carries the number
//! of its set where the kernel itself hands it on to children and over exec(2): as its soft limit RLIMIT_LOCKS, which has had no meaning since
//! Linux 2.4.25 and may be lowered and raised by everybody. (Rejected: a table by pid, which sees neither fork nor exec, and loses a daemon's
//! ids with its parent.) Whoever changes that limit by himself only deceives himself: no right depends on it.
#![forbid(unsafe_code)]

use crate::sys::{Errno, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Real, effective, saved, and that of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Four {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    pub files: u32,
}

/// In a call: as it is.
pub const KEEP: u32 = u32::MAX;

impl Four {
    pub fn all(id: u32) -> Four {
        Four { real: id, effective: id, saved: id, files: id }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// man: setuid(2), setgid(2)
    pub fn set(self, id: u32, privileged: bool) -> Result<Four> {
        match () {
            () if id == KEEP => Err(Errno::INVAL),
            () if privileged => Ok(Four::all(id)),
            () if id == self.real || id == self.saved => Ok(Four { effective: id, files: id, ..self }),
            () => Err(Errno::PERM),
        }
    }

    /// man: setreuid(2)
    pub fn set_re(self, real: u32, effective: u32, privileged: bool) -> Result<Four> {
        let may_real = real == KEEP || privileged || real == self.real || real == self.effective;
        if !may_real || !(effective == KEEP || privileged || self.has(effective)) {
            return Err(Errno::PERM);
        }
        let mut new = self;
        if real != KEEP {
            new.real = real;
        }
        if effective != KEEP {
            new.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != self.real) {
            new.saved = new.effective;
        }
        Ok(Four { files: new.effective, ..new })
    }

    /// man: setresuid(2)
    pub fn set_res(self, three: [u32; 3], privileged: bool) -> Result<Four> {
        if !privileged && three.iter().any(|id| *id != KEEP && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let or = |id: u32, old: u32| if id == KEEP { old } else { id };
        let [real, effective, saved] = three;
        let effective = or(effective, self.effective);
        Ok(Four { real: or(real, self.real), effective, saved: or(saved, self.saved), files: effective })
    }

    /// man: setfsuid(2): what is refused changes nothing.
    pub fn set_files(self, id: u32, privileged: bool) -> Four {
        if id != KEEP && (privileged || self.has(id) || id == self.files) { Four { files: id, ..self } } else { self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ids {
    pub user: Four,
    pub group: Four,
    /// None: never set, so what the kernel says.
    pub groups: Option<Box<[u32]>>,
}

impl Ids {
    pub fn born(uid: u32, gid: u32) -> Ids {
        Ids { user: Four::all(uid), group: Four::all(gid), groups: None }
    }

    pub fn of(uid: u32, gid: u32, mut groups: Vec<u32>) -> Ids {
        groups.truncate(MOST_GROUPS);
        Ids { groups: Some(groups.into()), ..Ids::born(uid, gid) }
    }

    /// The group is one of the process's.
    pub fn is_in(&self, gid: u32) -> bool {
        self.group.files == gid || self.groups.iter().flatten().any(|g| *g == gid)
    }
}

/// So many different sets there may be in a sandbox, and so many further groups in one. // I4
const MOST_SETS: usize = 4096;
pub const MOST_GROUPS: usize = 256;

/// A limit that is one of ours begins with this.
const MARK: u64 = 0x6f77_6e65_7200_0000;

/// The sets that were seen, by number, and that of all who never asked for another.
#[derive(Debug)]
pub struct Sets {
    born: Ids,
    /// Those of its birth are not what the kernel says, either.
    pretended: bool,
    others: Vec<Ids>,
    numbers: HashMap<Ids, usize>,
}

impl Sets {
    pub fn new(born: Ids) -> Sets {
        Sets { born, pretended: false, others: Vec::new(), numbers: HashMap::new() }
    }

    pub fn pretended(born: Ids) -> Sets {
        Sets { pretended: true, ..Sets::new(born) }
    }

    /// The set that a process with this limit has; None: that of its birth, as the kernel says it.
    pub fn get(&self, limit: u64) -> Option<&Ids> {
        let number = limit.checked_sub(MARK).and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.others.get(number)).or_else(|| self.pretended.then_some(&self.born))
    }

    pub fn born(&self) -> &Ids {
        &self.born
    }

    /// The limit that says `ids`.
    pub fn limit(&mut self, ids: Ids) -> Result<u64> {
        let number = match self.numbers.get(&ids) {
            Some(number) => *number,
            None if self.others.len() >= MOST_SETS => return Err(Errno::AGAIN),
            None => {
                self.numbers.insert(ids.clone(), self.others.len());
                self.others.push(ids);
                self.others.len() - 1
            }
        };
        Ok(MARK + number as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(real: u32, effective: u32, saved: u32) -> Four {
        Four { real, effective, saved, files: effective }
    }

    #[test]
    fn as_credentials_7_says() {
        let (root, user) = (Four::all(0), Four::all(33));
        assert_eq!(root.set(33, true), Ok(user));
        assert_eq!(user.set(0, false), Err(Errno::PERM));
        assert_eq!(root.set(KEEP, true), Err(Errno::INVAL));
        // seteuid(33) of root, and back.
        let stepped = root.set_res([KEEP, 33, KEEP], true).unwrap();
        assert_eq!(stepped, four(0, 33, 0));
        assert_eq!(stepped.set(0, false), Ok(root));
        assert_eq!(stepped.set_res([33, 33, 33], false), Ok(user));
        assert_eq!(stepped.set_res([KEEP, 5, KEEP], false), Err(Errno::PERM));
        // A swap keeps both; what sets the real one sets the saved one.
        assert_eq!(four(1, 2, 3).set_re(2, 1, false), Ok(four(2, 1, 1)));
        assert_eq!(four(1, 2, 3).set_re(3, KEEP, false), Err(Errno::PERM));
        assert_eq!(four(1, 2, 3).set_re(KEEP, 1, false), Ok(four(1, 1, 3)));
        assert_eq!(four(1, 2, 3).set_re(KEEP, 3, false), Ok(four(1, 3, 3)));
        assert_eq!(user.set_files(0, false), user);
        assert_eq!(stepped.set_files(0, false).files, 0);
    }

    #[test]
    fn sets_are_numbered_once_and_are_not_without_end() {
        let mut sets = Sets::new(Ids::born(0, 0));
        let user = |n| Ids::born(n, n);
        let limit = sets.limit(user(33)).unwrap();
        assert_eq!(sets.limit(user(33)), Ok(limit));
        assert_eq!(sets.get(limit), Some(&user(33)));
        for foreign in [0, 7, u64::MAX, MARK + 99, MARK - 1] {
            assert_eq!(sets.get(foreign), None, "{foreign:x}");
        }
        let refused = (0..10_000).find(|n| sets.limit(user(*n)).is_err());
        assert_eq!(refused, Some(MOST_SETS as u32));
        assert_eq!(sets.limit(user(33)), Ok(limit));
    }
}
